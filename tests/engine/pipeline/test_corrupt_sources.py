"""Check that every corruption, in every container, ends as an `input` failure.

Most files are checked as the engine checks a source first; what that check does not find, and one file
of each kind of fault, runs through the whole engine. With `DISTCONV_FULL_MATRIX=1` (`make verdicts`)
every file does.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.clips import CONTAINERS, Clips
from tests.engine.conftest import Run
from tests.engine.daemon import FakeDaemon, Served
from tests.engine.pipeline.corrupt import CORRUPTIONS, corrupt_for_format
from tests.engine.pipeline.rows import (
    AS_IT_IS,
    CHANGING,
    CHANGING_ROWS,
    CORRUPTED,
    DETECTED,
    MISBEHAVIOUR,
    OTHER_CORRUPTED,
    SERVED,
    UNDETECTABLE,
    UNDETECTED,
)
from tests.engine.pipeline.verdicts import (
    PAGE,
    Verdicts,
    failed,
    one_of_each_check,
    read_rows,
    succeeded,
)

from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.backoff import Backoff
from distconv_engine.checks.source import check_source
from distconv_engine.failures import InputFault
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.media.ffmpeg import Ffmpeg

pytestmark = pytest.mark.e2e
FAST = {"preset": "ultrafast"}
Copy = Callable[[str, str], Path]
FULL_MATRIX = bool(os.environ.get("DISTCONV_FULL_MATRIX"))
WHOLE = one_of_each_check(read_rows(PAGE.read_text(encoding="utf-8")))
"""The rows that always run through the whole engine."""


@pytest.fixture
def convert(run_job: Run, tools: Tools) -> Run:
    """Convert the source of a row; only what passes the source check, in rows that are not whole."""

    async def run(row: tuple[str, str, str], path: Path) -> None:
        if not FULL_MATRIX and row not in WHOLE:
            await check_source(Ffmpeg(tools, Controls()), path)
        await run_job(path, "h264", options=FAST)

    return run


def copy_of(clips: Clips, kind: str, folder: Path) -> Path:
    path = folder / f"clip.{kind.partition('-')[0]}"
    path.write_bytes(clips.container(kind).read_bytes())
    return path


@pytest.mark.parametrize("how", list(CORRUPTIONS))
@pytest.mark.parametrize("kind", list(CONTAINERS))
async def test_a_corrupted_source_is_an_input_failure_and_leaves_nothing(
    kind: str, how: str, convert: Run, clips: Clips, verdicts: Verdicts, tmp_path: Path
) -> None:
    corrupted = copy_of(clips, kind, tmp_path)
    content = CORRUPTIONS[how](corrupted.read_bytes())
    corrupted.write_bytes(content)
    before = corrupted.stat().st_mtime_ns
    with pytest.raises(InputFault) as caught:
        await convert((CORRUPTED, kind, how), corrupted)
    assert "source" in caught.value.message.lower()
    assert not list((tmp_path / "out").glob("*"))
    assert corrupted.stat().st_mtime_ns == before
    assert corrupted.read_bytes() == content
    verdicts.expect_verdict(CORRUPTED, kind, how, failed(caught.value))


@pytest.mark.parametrize("kind", list(CONTAINERS))
async def test_the_same_source_uncorrupted_is_a_success(
    kind: str, run_job: Run, clips: Clips, verdicts: Verdicts
) -> None:
    report = await run_job(clips.container(kind), "h264", options=FAST)
    assert report.result.video_frames == 50
    assert report.result.audio_codec in ("aac", "mp3", "opus")
    verdicts.expect_verdict(CORRUPTED, kind, AS_IT_IS, succeeded(report))


@pytest.fixture
def corrupted_copy(clips: Clips, tools: Tools, tmp_path: Path) -> Copy:
    """Copy the named clip, corrupted in the given way."""

    def copy(name: str, how: str) -> Path:
        whole = clips.odd(name)
        path = tmp_path / f"clip{whole.suffix}"
        path.write_bytes(corrupt_for_format(tools, whole, how))
        return path

    return copy


@pytest.mark.parametrize("name,how", DETECTED)
async def test_damage_that_container_or_decoder_detects_is_an_input_failure(
    name: str, how: str, corrupted_copy: Copy, convert: Run, verdicts: Verdicts
) -> None:
    path = corrupted_copy(name, how)
    with pytest.raises(InputFault) as caught:
        await convert((OTHER_CORRUPTED, name, how), path)
    verdicts.expect_verdict(OTHER_CORRUPTED, name, how, failed(caught.value))


@pytest.mark.parametrize("name,how", UNDETECTED)
async def test_damage_that_only_a_digest_reveals_is_found_with_a_digest(
    name: str, how: str, corrupted_copy: Copy, run_job: Run, clips: Clips, verdicts: Verdicts
) -> None:
    path = corrupted_copy(name, how)
    report = await run_job(path, "h264", options=FAST)
    verdicts.expect_verdict(UNDETECTABLE, name, how, succeeded(report))
    digest = hashlib.sha256(clips.odd(name).read_bytes()).hexdigest()
    with pytest.raises(InputFault, match="SHA-256"):
        await run_job(path, "h264", options=FAST, source_sha256=digest)


# ---------------------------------------------------------------------- sources changed while read


class Meddler(Tracker):
    """Changes the source after the engine has checked and encoded it."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self._meddle = meddle

    def phase(self, name: str) -> None:
        super().phase(name)
        if name == "verify":
            self._meddle()


def change(how: str, path: Path) -> None:
    size = path.stat().st_size
    if how == "is replaced":
        corrupted = path.with_suffix(".new")
        corrupted.write_bytes(path.read_bytes())
        corrupted.rename(path)
    elif how == "is written to":
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"?")
    else:
        os.truncate(path, size + (4096 if how == "grows" else -4096))


@pytest.mark.parametrize("kind,how", CHANGING_ROWS)
async def test_a_source_that_changes_while_it_is_read_is_an_input_failure(
    kind: str, how: str, run_job: Run, clips: Clips, verdicts: Verdicts, tmp_path: Path
) -> None:
    source = copy_of(clips, kind, tmp_path)
    tracker = Meddler(lambda: change(how, source))
    with pytest.raises(InputFault, match="while it was read") as caught:
        await run_job(source, "h264", options=FAST, tracker=tracker)
    assert not list((tmp_path / "out").glob("*"))
    verdicts.expect_verdict(CHANGING, kind, how, failed(caught.value))


# ------------------------------------------------------------------------- servers that misbehave


def served(how: str, content: bytes) -> Served:
    part, tag = len(content) * 6 // 10, '"v1"'
    kinds: dict[str, dict[str, Any]] = {
        "breaks off": {"cut_at": part},
        "claims less": {"claim_length": part},
        "claims more": {"claim_length": len(content) + 500, "ranges": False},
        "changes between requests": {"break_after": [part], "etags": [tag], "etag": '"v2"'},
    }
    return Served(content, **kinds[how])


@pytest.mark.parametrize("how", MISBEHAVIOUR)
@pytest.mark.parametrize("kind", list(CONTAINERS))
async def test_a_source_that_cannot_be_fetched_whole_is_an_input_failure(
    kind: str,
    how: str,
    run_job: Run,
    clips: Clips,
    daemon: FakeDaemon,
    verdicts: Verdicts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "next_s", lambda self: 0.0)
    clip = clips.container(kind)
    daemon.files["/clip"] = served(how, clip.read_bytes())
    with pytest.raises(InputFault) as caught:
        await run_job(f"{daemon.url}/clip", "h264", fetch_tries=2, options=FAST)
    assert not list((tmp_path / "out").glob("*"))
    verdicts.expect_verdict(SERVED, kind, how, failed(caught.value))
