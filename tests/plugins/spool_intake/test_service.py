"""The intake runs as a service, again after a failure, on the spool of the configuration."""

import errno
import json
import socket
from pathlib import Path

import msgspec
import pytest
import trio
from tests.plugins.kit import Context, registered
from tests.plugins.spool_intake.kit import GOOD, FakeDaemon, intake_of, names

from distconv_plugins.spool_intake import plugin
from distconv_plugins.spool_intake.plugin import SpoolIntake
from distconv_spool import Layout, State, look, submit
from distconv_spool.disk import OsDisk
from distconv_spool.testing import Fault, FaultyDisk
from distconvd.dispatch import Event
from distconvd.errors import ConfigError


class NotifyingDisk(OsDisk):
    """Sets an event when a folder has been made durable."""

    def __init__(self) -> None:
        self.synced = {"accepted": trio.Event(), "results": trio.Event()}

    def sync_dir(self, folder: Path) -> None:
        super().sync_dir(folder)
        if folder.name in self.synced:
            trio.from_thread.run_sync(self.synced[folder.name].set)


async def test_the_running_service_accepts_drops_and_writes_results(
    layout: Layout, daemon: FakeDaemon
) -> None:
    drop, disk = submit(layout.root, GOOD), NotifyingDisk()
    intake = intake_of(layout, daemon, disk=disk)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.run)
            await disk.synced["accepted"].wait()
            assert look(layout.root, drop).state is State.ACCEPTED
            record = msgspec.json.encode(daemon.end("1753_1"))
            intake.on_event(Event("job.completed", 0, "1753_1", record=record))
            await disk.synced["results"].wait()
            nursery.cancel_scope.cancel()
    assert look(layout.root, drop).state is State.FINISHED


async def test_the_service_can_be_run_again(layout: Layout, daemon: FakeDaemon) -> None:
    """The daemon runs a service again when it has failed."""
    intake = intake_of(layout, daemon)
    for number in range(2):
        (layout.incoming / f"{number:032x}.json").write_text(json.dumps(GOOD))
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(intake.run)
                while names(layout.incoming) or names(layout.claimed / "me"):
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert len(names(layout.accepted)) == len(daemon.jobs) == 2


async def test_the_service_does_not_start_on_an_unsafe_spool(
    layout: Layout, daemon: FakeDaemon
) -> None:
    layout.incoming.chmod(0o777)
    with pytest.raises(ConfigError, match="Anybody may write"):
        await intake_of(layout, daemon).run()


async def test_a_disk_error_is_reported_once_and_the_step_is_retried(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    submit(layout.root, GOOD)
    accepted = trio.Event()
    daemon.before_reply = accepted.set
    disk = FaultyDisk(2, Fault.FAIL, errno.EIO, only=frozenset({"scan"}))
    intake = SpoolIntake(layout.root, daemon, owner="me", poll_s=0.001, disk=disk)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.run)
            await accepted.wait()
            nursery.cancel_scope.cancel()
    assert len([line for line in caplog.messages if "disk error" in line]) == 1


# -------------------------------------------------------------------------------------- the plugin


def service(
    root: Path, daemon: FakeDaemon, spool_dir: Path | None, settings: dict[str, object]
) -> object:
    factory = registered(plugin.distconvd_register_services, "spool-intake")
    return factory(Context(root, "spool-intake", settings, spool_dir), daemon)


def test_a_daemon_without_a_spool_gets_no_intake(tmp_path: Path, daemon: FakeDaemon) -> None:
    assert service(tmp_path, daemon, None, {}) is None


async def test_the_plugin_serves_the_spool_of_the_configuration(
    tmp_path: Path, daemon: FakeDaemon
) -> None:
    made = service(tmp_path, daemon, tmp_path / "spool", {"owner": "dispatch-1"})
    assert isinstance(made, SpoolIntake)
    async with made.access.opened():
        submit(tmp_path / "spool", GOOD)
        await made.drops.poll(0.0)
    assert (tmp_path / "spool" / "claimed" / "dispatch-1").is_dir()
    assert len(daemon.jobs) == 1


async def test_the_owner_defaults_to_the_host_name(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host name.example")
    made = service(tmp_path, daemon, tmp_path / "spool", {})
    assert isinstance(made, SpoolIntake)
    async with made.access.opened():
        assert (tmp_path / "spool" / "claimed" / "host-name.example").is_dir()


def test_a_group_that_does_not_exist_is_reported(tmp_path: Path, daemon: FakeDaemon) -> None:
    with pytest.raises(ConfigError, match="no group 'nobody-has-this'"):
        service(tmp_path, daemon, tmp_path / "spool", {"group": "nobody-has-this"})


@pytest.mark.parametrize("settings", [{"settle": 3}, {"poll_s": "x"}, {"owner": 3}])
def test_a_wrong_setting_is_refused(
    tmp_path: Path, daemon: FakeDaemon, settings: dict[str, object]
) -> None:
    with pytest.raises(msgspec.ValidationError):
        service(tmp_path, daemon, tmp_path / "spool", settings)
