"""Heartbeats are frequent enough for the daemon's lease, against a whole daemon on virtual time."""

from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from tests.engine.attempts import make_attempt
from trio.testing import MockClock

from distconv_engine.attempts.active import ActiveAttempt
from distconv_engine.config import Config
from distconv_engine.daemon_link.heartbeats import INTERVAL_S_MIN, Heartbeats, interval_s
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus
from distconvd.model import Heartbeat, HeartbeatReply, Job
from distconvd.testing.daemon import Daemon, open_daemon


class Api(DaemonApi):
    """Sends heartbeats to a daemon in this process; notes when."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(httpx.AsyncClient(), "http://daemon", None)
        self.sent_at_s: list[float] = []
        self.is_broken = False
        self._daemon = daemon

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        self.sent_at_s.append(trio.current_time())
        if self.is_broken:
            await trio.lowlevel.checkpoint()
            raise DaemonUnavailable("no connection")
        body = msgspec.to_builtins(beat)
        reply = await self._daemon.client.post("/engines/heartbeat", body)
        return msgspec.json.decode(reply.body, type=HeartbeatReply)

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two heartbeats."""
        return max(b - a for a, b in zip(self.sent_at_s, self.sent_at_s[1:], strict=False))


def status_of(folder: Path, **settings: float) -> EngineStatus:
    config = Config(work_dir=folder, disk_reserve_mb=0, **settings)  # type: ignore[arg-type]
    return EngineStatus(config, "E1", "host")


async def test_an_attempt_outlives_a_lease_that_is_shorter_than_the_heartbeat_setting(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """And one broken connection in it."""
    leases = {"lease_s": 6, "start_grace_s": 0, "retry_elsewhere_s": 0}
    async with open_daemon(dispatch=leases) as daemon:
        engine_status, api = status_of(tmp_path, heartbeat_s=10), Api(daemon)
        nursery.start_soon(Heartbeats(api, engine_status, Log()).run)
        await trio.sleep(1)
        await daemon.client.post(
            "/engines/benchmark_result", {"engine_id": "E1", "benchmark_time": 1}
        )
        await daemon.client.post("/engines/heartbeat", {"engine_id": "E1", "status": "idle"})
        await daemon.client.post("/jobs/", {"source_url": "http://a/b", "target_codec": "h264"})
        reply = await daemon.client.post("/assign_job/", {"engine_id": "E1"})
        job = msgspec.json.decode(reply.body, type=Job)
        active = ActiveAttempt(make_attempt(job, tmp_path))
        engine_status.active_attempts.add(active)
        await trio.sleep(30)
        api.is_broken = True
        await trio.sleep(2.5)
        api.is_broken = False
        await trio.sleep(30)
        now = (await daemon.client.get(f"/jobs/{job.job_id}")).json()
        assert (now["status"], now["attempt"]) == ("assigned", 1)
        assert api.longest_gap_s <= 2.01
        nursery.cancel_scope.cancel()


async def test_a_long_lease_leaves_the_heartbeats_as_they_are_set(
    autojump_clock: MockClock, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with open_daemon(dispatch={"lease_s": 600}) as daemon:
        api = Api(daemon)
        nursery.start_soon(Heartbeats(api, status_of(tmp_path, heartbeat_s=10), Log()).run)
        await trio.sleep(95)
        assert len(api.sent_at_s) == 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "lease_s, expected", [(60.0, 10.0), (30.0, 10.0), (6.0, 2.0), (0.0, INTERVAL_S_MIN)]
)
def test_the_interval_is_a_third_of_the_lease_and_never_longer_than_set(
    lease_s: float, expected: float
) -> None:
    assert interval_s(10.0, lease_s) == expected
