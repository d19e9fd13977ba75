"""Check that an engine finds out what its ffmpeg converts, keeps it, and acts on it."""

import dataclasses
from pathlib import Path

import httpx
import pytest
import trio
from tests.engine.clips import Clips
from tests.engine.conftest import Run, of_one_ffmpeg
from tools.self_test_clips import BYTES_MAX, RECIPES, make

from distconv_engine.attempts.context import EngineContext
from distconv_engine.attempts.journal import Journal
from distconv_engine.checks.needs import check_needs, needs_of
from distconv_engine.config import Config
from distconv_engine.failures import Incapable, Lacking, TransientFault
from distconv_engine.ffmpeg.inputs import file_url
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Tools
from distconv_engine.host.capabilities import Capabilities
from distconv_engine.logs import Log
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.media.probe import Probe, Stream
from distconv_engine.self_test import run as self_test_module
from distconv_engine.self_test.clips import CLIPS, FOLDER
from distconv_engine.self_test.outcome import FILE, maybe_outcome
from distconv_engine.self_test.run import self_test
from distconvd.model import Capability, FailureClass

FAST = {"preset": "ultrafast"}


def test_each_capability_has_a_clip_with_a_recipe_and_all_are_small() -> None:
    assert list(CLIPS) == list(RECIPES) == list(Capability)
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(c.file for c in CLIPS.values())
    assert sum(clip.path.stat().st_size for clip in CLIPS.values()) <= BYTES_MAX


def context_of(tools: Tools, capabilities: Capabilities, folder: Path) -> EngineContext:
    log = Log()
    config = Config(disk_reserve_mb=0, stall_s=20)
    client, journal = httpx.AsyncClient(), Journal(folder / "held", log)
    return EngineContext(config, "e1", tools, capabilities, client, journal, log)


@pytest.mark.e2e
@pytest.mark.parametrize("capability", Capability)
async def test_the_clip_of_a_kind_is_of_that_kind_and_as_its_recipe_makes_it(
    capability: Capability, tools: Tools, tmp_path: Path
) -> None:
    ffmpeg = Ffmpeg(tools, Controls())
    kept = await ffmpeg.probe(file_url(CLIPS[capability].path))
    if capability is not Capability.ZLIB_TRACKS or kept.is_packed:  # an ffprobe with zlib
        assert capability in needs_of(kept)
    make(tmp_path)
    made = await ffmpeg.probe(file_url(tmp_path / CLIPS[capability].file))
    assert made == kept


@pytest.mark.e2e
async def test_the_bundled_ffmpeg_converts_every_clip_and_the_outcome_is_kept(
    tools: Tools, capabilities: Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, cache = context_of(tools, capabilities, tmp_path), tmp_path / FILE
    outcome = await self_test(context, tmp_path / "clips", cache)
    assert outcome.failed == {}
    assert outcome.passed == list(Capability)
    assert not (tmp_path / "clips").exists()

    async def never(*arguments: object) -> None:
        raise AssertionError("tested again")

    monkeypatch.setattr(self_test_module, "_convert", never)
    start = trio.current_time()
    assert await self_test(context, tmp_path / "clips", cache) == outcome
    assert trio.current_time() - start < 5  # hashes three programs; measured: 0.2 s
    other = tmp_path / "ffmpeg"
    other.write_text(f'#!/bin/sh\nexec {tools.ffmpeg} "$@"\n')  # the same, but another file
    changed = dataclasses.replace(context, tools=dataclasses.replace(tools, ffmpeg=str(other)))
    with pytest.raises(ExceptionGroup):
        await self_test(changed, tmp_path / "clips", cache)


OFTEN_LACKING = {Capability.HDR_HEVC, Capability.PNG_COVER, Capability.ZLIB_TRACKS}
"""What some builds of ffmpeg cannot convert by themselves."""


@pytest.mark.e2e
async def test_an_ffmpeg_that_cannot_read_a_kind_lacks_that_capability_only(
    tools: Tools, capabilities: Capabilities, tmp_path: Path
) -> None:
    """It says of each TS what it would say of a damaged one."""
    other = tmp_path / "ffmpeg"
    damaged = "[h264 @ 0x1] [error] error while decoding MB 1 2"
    script = f'case "$*" in *open-gop.ts*) echo "{damaged}" >&2; exit 69;; esac\n'
    other.write_text(f'#!/bin/sh\n{script}exec {tools.ffmpeg} "$@"\n')
    other.chmod(0o755)
    broken = dataclasses.replace(tools, ffmpeg=str(other), spares=())
    own = of_one_ffmpeg(capabilities, broken)
    context, cache = context_of(broken, own, tmp_path), tmp_path / FILE
    outcome = await self_test(context, tmp_path / "clips", cache)
    assert set(outcome.failed) - OFTEN_LACKING == {Capability.OPEN_GOP_TS}
    assert "damaged" in outcome.failed[Capability.OPEN_GOP_TS]
    assert maybe_outcome(cache) == outcome


@pytest.mark.parametrize("error", [TransientFault("The disk is full."), KeyError("x")])
async def test_a_full_disk_says_nothing_of_ffmpeg_but_a_bug_costs_the_capability(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(self_test_module, "run_attempt", fail)
    monkeypatch.setattr(self_test_module, "outcome_key", lambda *arguments: "key")
    tools = Tools("ffmpeg", "ffprobe", "9")
    capabilities = Capabilities({"h264": ()}, {})
    monkeypatch.setattr(Capabilities, "codecs", ["h264"])
    outcome = await self_test(
        context_of(tools, capabilities, tmp_path), tmp_path / "clips", tmp_path / FILE
    )
    is_kept = (tmp_path / FILE).exists()
    if isinstance(error, TransientFault):
        assert (outcome.failed, is_kept) == ({}, False)
    else:
        assert set(outcome.failed) == set(Capability)
        assert "A bug in the engine: KeyError" in outcome.failed[Capability.VFR]
        assert is_kept


# ------------------------------------------------------------------------ what follows for a job


@pytest.mark.e2e
async def test_a_source_of_a_kind_that_the_engine_lacks_is_returned_before_it_is_judged(
    run_job: Run, clips: Clips, tmp_path: Path
) -> None:
    source = clips.plain()
    lacking = frozenset({Capability.MP4_AAC})
    with pytest.raises(Incapable, match="its own test clip of this kind: mp4-aac") as caught:
        await run_job(source, options=FAST, lacking=lacking)
    assert (caught.value.error_class, caught.value.needs) == (
        FailureClass.INCAPABLE, (Capability.MP4_AAC,),
    )  # fmt: skip
    assert (await run_job(clips.odd("no-audio"), options=FAST, lacking=lacking)).result


def a_probe(demuxer: str, *streams: Stream, is_packed: bool = False) -> Probe:
    return Probe(demuxer, 1.0, 0.0, streams, is_packed=is_packed)


def test_a_usual_source_needs_no_capability() -> None:
    usual = a_probe("matroska,webm", Stream(0, "video", "h264"), Stream(1, "audio", "aac"))
    assert needs_of(usual) == frozenset()
    check_needs(usual, frozenset(Capability))


def test_a_source_names_all_that_an_engine_lacks_for_it() -> None:
    found = a_probe("mov,mp4", Stream(0, "audio", "aac"), Stream(1, "video", "png", is_cover=True))
    with pytest.raises(Incapable) as caught:
        check_needs(found, frozenset(Capability))
    assert caught.value.needs == (Capability.MP4_AAC, Capability.PNG_COVER)


def test_what_is_lacking_without_a_capability_is_retried_as_if_the_settings_forbade_it() -> None:
    assert Lacking("no decoder for apng").error_class is FailureClass.NOT_ALLOWED
