"""Test that a drain releases pushed jobs that have not started, and none that runs."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from tests.engine.attempts import make_attempt

from distconv_engine import agent as agent_module
from distconv_engine.agent import Agent
from distconv_engine.attempts.active import ActiveAttempt
from distconv_engine.config import Config
from distconv_engine.daemon_link.websocket import PushLink
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.logs import Log
from distconv_engine.status import EngineStatus
from distconvd.model import Job


def job_of(job_id: str) -> Job:
    fields = {"job_id": job_id, "source_url": "file:///a", "target_codec": "h264", "job_size": 1.0}
    return msgspec.convert({**fields, "status": "assigned", "attempt": 1}, Job, strict=False)


@pytest.mark.parametrize("begun", [False, True], ids=["not started", "running"])
async def test_a_job_that_a_restarted_daemon_pushes_again_is_released_only_if_it_does_not_run(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of("1_0")
    monkeypatch.setattr(PushLink, "take_waiting", lambda link: [job])
    engine_status = EngineStatus(Config(work_dir=tmp_path), "e1", "host")
    async with httpx.AsyncClient() as client:
        agent = Agent(engine_status, Tools("ffmpeg", "ffprobe", "8"), client, client, Log())
        if begun:
            engine_status.active_attempts.add(ActiveAttempt(make_attempt(job, tmp_path)))
        await agent._release_waiting()
        assert len(agent._outbox) == (0 if begun else 1)


async def test_an_engine_whose_id_another_one_has_drains_and_exits_so_that_its_unit_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "REPLACED_PAUSE_S", 0.1)
    engine_status = EngineStatus(
        Config(work_dir=tmp_path, server="http://127.0.0.1:9"), "e1", "host"
    )
    (tmp_path / "outbox").mkdir()
    async with httpx.AsyncClient() as client:
        agent = Agent(engine_status, Tools("ffmpeg", "ffprobe", "8"), client, client, Log())
        agent._replaced()
        with pytest.raises(ExceptionGroup) as caught, trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(agent.run)
    assert engine_status.draining.is_set()
    assert caught.group_contains(ConfigError, match="'e1'")
    (error,) = _leaves(caught.value)
    assert isinstance(error, ConfigError)
    assert error.exit_code == 75  # not 78: RestartPreventExitStatus=2 78


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
