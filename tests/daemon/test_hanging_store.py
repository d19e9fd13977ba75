"""A store whose commit hangs: it is reported, and the daemon can be stopped all the same."""

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.daemon.kit import JOB, start

from distconv_plugins.stores.memory import Memory, MemoryStore
from distconvd.errors import StoreError
from distconvd.plugin_host.services import plain_refusals
from distconvd.testing.daemon import open_daemon


async def test_a_commit_that_takes_long_is_logged_once_and_shown_by_readyz(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    async with open_daemon(store=store) as daemon, trio.open_nursery() as nursery:
        store.block_commits()
        nursery.start_soon(daemon.client.post, "/jobs/", JOB)
        await trio.sleep(9)
        assert (await daemon.client.get("/readyz")).status == 200
        await trio.sleep(6)
        reply = await daemon.client.get("/readyz")
        assert reply.status == 503
        assert "a commit has taken 15 s" in reply.body.decode()
        store.release()
        await trio.sleep(1)
        assert (await daemon.client.get("/readyz")).status == 200
    warnings = [r for r in caplog.records if "commit has taken" in r.getMessage()]
    assert [r.levelno for r in warnings] == [logging.WARNING]


async def test_a_drain_ends_despite_a_hanging_commit_and_keeps_what_was_acknowledged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    store = MemoryStore(memory)
    kept: list[str] = []

    async def serve_and_hang() -> None:
        async with open_daemon(store=store, drain_s=5) as daemon:
            kept.append((await daemon.client.post("/jobs/", JOB)).json()["job_id"])
            store.block_commits()
            with trio.move_on_after(1):
                await daemon.client.post("/jobs/", JOB)

    began_s = trio.current_time()
    with pytest.raises(StoreError, match="abandoned"), plain_refusals():
        await serve_and_hang()
    assert trio.current_time() - began_s < 10
    warnings = [r.getMessage() for r in caplog.records if "is abandoned" in r.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith("the store memory has not finished a commit")
    assert list(memory.tables["jobs"]) == kept


async def test_a_store_that_fails_to_close_is_logged_and_the_drain_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sour(MemoryStore):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("no")

    async with open_daemon(store=Sour()) as daemon:
        assert (await daemon.client.post("/jobs/", JOB)).status == 200
    assert "the store memory failed while it was closed" in caplog.text


HANGS = """
import threading, time
import trio
from distconvd import hookimpl
from distconv_plugins.stores.memory import MemoryStore
class Hangs(MemoryStore):
    async def commit(self, changes):
        {how}
@hookimpl
def distconvd_register_stores(registrar): registrar.add("hangs", lambda context: Hangs())
"""
IN_A_TASK = "await trio.sleep_forever()"
IN_A_THREAD = "await trio.to_thread.run_sync(threading.Event().wait)"


@pytest.mark.e2e
@pytest.mark.parametrize("how", [IN_A_TASK, IN_A_THREAD], ids=["task", "thread"])
@pytest.mark.parametrize("drain_s, signals", [(1, 1), (60, 2)], ids=["drained", "second signal"])
def test_sigterm_ends_a_daemon_whose_commit_hangs(
    tmp_path: Path, how: str, drain_s: int, signals: int
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS.format(how=how))
    flags = ("--plugin", "./hangs.py", "--store", "hangs", "--set", f"drain_s={drain_s}")
    with start(tmp_path, *flags) as daemon:
        connection = daemon.connect()
        headers = {"X-API-Key": "e2e-secret-key", "Content-Type": "application/json"}
        body = b'{"source_url": "http://a/b", "target_codec": "h264"}'
        connection.request("POST", "/jobs/", body, headers)
        assert daemon.ask("GET", "/livez")[0] == 200
        for number in range(signals):
            daemon.process.send_signal(signal.SIGTERM)
            if number + 1 < signals:
                _wait_until(lambda: "draining" in daemon.log)
        assert daemon.process.wait(20) == 1
        connection.close()
        assert "the store hangs has not finished a commit" in daemon.log


def _wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)  # a log file is written by another process: there is nothing to wait for
