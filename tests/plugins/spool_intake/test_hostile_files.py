"""A file in incoming/ that is not a drop, or that changes, vanishes or is stuck, harms no other."""

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.spool_intake.kit import GOOD, FakeDaemon, drop_names, intake_of, names, take_in

from distconv_spool import Layout, submit
from distconv_spool.disk import OsDisk


def _link(path: Path) -> None:
    (path.parent.parent / "secret").write_text(json.dumps(GOOD))
    path.symlink_to(path.parent.parent / "secret")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make, what",
    [
        (_link, "a symbolic link"),
        (lambda path: path.symlink_to(path), "a symbolic link"),
        (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a named pipe"),
        (_socket, "a socket"),
    ],
    ids=["link", "loop", "link to device", "folder", "pipe", "socket"],
)
async def test_a_special_file_is_rejected_and_its_target_is_not_read(
    layout: Layout, daemon: FakeDaemon, make: Callable[[Path], None], what: str
) -> None:
    make(layout.incoming / "a.json")
    await take_in(layout, daemon)
    assert daemon.calls == []
    file, problem = names(layout.rejected)
    assert what in json.loads((layout.rejected / problem).read_bytes())["detail"]
    assert os.path.lexists(layout.rejected / file)


async def test_a_folder_under_a_keyed_name_does_not_block_its_key(
    layout: Layout, daemon: FakeDaemon
) -> None:
    for _ in range(2):
        (layout.incoming / f"{'a' * 32}.json").mkdir()
        await take_in(layout, daemon)
    assert len(names(layout.rejected)) == 4


class UnreadableDisk(OsDisk):
    """Its files belong to somebody else."""

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        raise PermissionError(errno.EACCES, "Permission denied")


async def test_a_drop_that_the_daemon_may_not_read_is_rejected_with_what_to_do(
    layout: Layout, daemon: FakeDaemon
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon, disk=UnreadableDisk())
    problem = json.loads((layout.rejected / names(layout.rejected)[1]).read_bytes())
    assert problem["status"] == 403
    assert "chmod g+r" in problem["detail"]


class StuckDisk(OsDisk):
    """One drop cannot be moved."""

    def rename(self, source: Path, target: Path) -> None:
        if source.name == "stuck.json":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        super().rename(source, target)


async def test_a_drop_that_cannot_be_moved_delays_no_other_and_is_reported_once(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("stuck.json", "b.json"):
        (layout.incoming / name).write_text(json.dumps(GOOD))
    await take_in(layout, daemon, disk=StuckDisk())
    assert names(layout.incoming) == ["stuck.json"]
    assert drop_names(layout.accepted) == ["b.json"]
    assert len([line for line in caplog.messages if "stuck" in line]) == 1


class FullDisk(OsDisk):
    """It takes no new file, and no new name in accepted/."""

    def write_new(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "accepted":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)


async def test_on_a_full_disk_drops_are_retried_once_a_poll_and_reported_once(
    layout: Layout, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (layout.incoming / f"{1:032x}.json").write_text("?")
    (layout.incoming / f"{2:032x}.json").write_text(json.dumps(GOOD))
    intake = intake_of(layout, daemon, disk=FullDisk())
    async with intake.access.opened():
        # Nothing was accepted or rejected, so the service waits before the next poll.
        assert [await intake.drops.poll(float(n)) for n in range(5)] == [0] * 5
    assert len([line for line in caplog.messages if "No space left" in line]) == 2
    assert not [line for line in caplog.messages if "is rejected" in line or "is job" in line]
    await take_in(layout, daemon)
    assert (len(daemon.jobs), names(layout.claimed / "me")) == (1, [])


class VanishingDisk(OsDisk):
    """Removes each file just before one kind of operation."""

    def __init__(self, before: str) -> None:
        self.before = before

    def lstat(self, path: Path) -> os.stat_result:
        self._vanish("lstat", path)
        return super().lstat(path)

    def read(self, path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        self._vanish("read", path)
        return super().read(path, limit_bytes)

    def rename(self, source: Path, target: Path) -> None:
        self._vanish(target.parent.name, source)
        super().rename(source, target)

    def _vanish(self, step: str, path: Path) -> None:
        if step == self.before:
            path.unlink()


@pytest.mark.parametrize("before", ["lstat", "read", "me", "accepted"])
async def test_a_file_that_disappears_at_any_step_harms_nothing(
    layout: Layout, daemon: FakeDaemon, before: str
) -> None:
    submit(layout.root, GOOD)
    await take_in(layout, daemon, disk=VanishingDisk(before))
    assert names(layout.incoming) == names(layout.claimed / "me") == names(layout.rejected) == []
    assert len(daemon.jobs) == (1 if before == "accepted" else 0)


class StaleDisk(OsDisk):
    """An NFS client that caches the status of a path for good, until the file is opened."""

    def __init__(self) -> None:
        self.seen: dict[Path, os.stat_result] = {}

    def lstat(self, path: Path) -> os.stat_result:
        return self.seen.setdefault(path, super().lstat(path))


async def test_a_file_that_still_changed_when_it_was_claimed_must_become_stable_again(
    layout: Layout, daemon: FakeDaemon
) -> None:
    intake = intake_of(layout, daemon, disk=StaleDisk())
    with (layout.incoming / "a.json").open("w") as writer:
        writer.write('{"source_url": ')
        writer.flush()
        async with intake.access.opened():
            await intake.drops.poll(0.0)
            writer.write('"file:///whole"}')
            writer.flush()
            await intake.drops.poll(10.0)
            assert drop_names(layout.claimed / "me") == ["a.json"]
            assert daemon.calls == []
            await intake.drops.poll(20.0)
            await intake.drops.poll(30.0)
    assert [job.source_url for job in daemon.jobs.values()] == ["file:///whole"]
