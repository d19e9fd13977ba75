"""A source in the daemon's media store is fetched with the engine's key only for jobs that may."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.engine.attempts import make_attempt

from distconv_engine.attempts.context import Attempt
from distconv_engine.failures import InputFault
from distconv_engine.pipeline.sources import key_for_source, open_local, open_proxied
from distconvd.model import Job

SERVER = "http://127.0.0.1:1"


def attempt_of(folder: Path, url: str, *, may_read_media: bool | None) -> Attempt:
    attempt = make_attempt(Job("1_0", url, "h264", may_read_media=may_read_media), folder)
    config = msgspec.structs.replace(attempt.context.config, server=SERVER, api_key="secret")
    attempt.context = replace(attempt.context, config=config)
    return attempt


@pytest.mark.parametrize("may_read_media", [True, None])
def test_the_key_is_sent_for_a_job_that_may_read_the_store(
    tmp_path: Path, may_read_media: bool | None
) -> None:
    attempt = attempt_of(tmp_path, f"{SERVER}/media/a.mp4", may_read_media=may_read_media)
    assert key_for_source(attempt) == "secret"


async def test_nothing_is_fetched_for_a_job_whose_key_may_not_read_the_store(
    tmp_path: Path,
) -> None:
    attempt = attempt_of(tmp_path, f"{SERVER}/media/a.mp4", may_read_media=False)
    with pytest.raises(InputFault, match="may not read"):
        await open_local(attempt)
    with pytest.raises(InputFault, match="may not read"):
        async with open_proxied(attempt):
            pass


def test_another_source_gets_no_key_whoever_submitted_it(tmp_path: Path) -> None:
    for may_read_media in (True, False, None):
        url = "http://elsewhere.example/media/a.mp4"
        attempt = attempt_of(tmp_path, url, may_read_media=may_read_media)
        assert key_for_source(attempt) is None
