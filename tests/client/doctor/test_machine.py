"""Test the checks of this machine: its encoders and its free disk space."""

import sys
from pathlib import Path

import pytest
from tests.client.doctor.kit import REPORT

from distconv_client.doctor import machine
from distconv_client.doctor.machine import EngineReport, check_disk, check_ffmpeg


@pytest.mark.parametrize(
    "report,outcome,said",
    [
        (None, "skip", "no engine is installed here"),
        (REPORT, "ok", "h264 with libx264, vp9 with libvpx-vp9; it cannot encode hevc, vp8, av1"),
        (EngineReport(error="There is no ffmpeg"), "fail", "There is no ffmpeg"),
        (EngineReport(None, "/f", "7.1", {}), "fail", "7.1 at /f encodes none of h264"),
        (
            EngineReport(None, "/f", "7.1", {"h264": "x"}, lacks={"vfr (phones)": "No frames."}),
            "fail",
            "its test failed with vfr (phones): No frames.",
        ),
    ],
)
def test_the_ffmpeg_check_depends_on_what_it_encodes(
    report: EngineReport | None, outcome: str, said: str
) -> None:
    result = check_ffmpeg(report)
    assert result.outcome == outcome
    assert said in result.detail
    assert bool(result.remedy) == (outcome == "fail")


def test_a_disk_below_an_engines_reserve_is_reported(tmp_path: Path) -> None:
    low = EngineReport(None, "f", "7", {"h264": "x"}, str(tmp_path), 100.0, 512.0)
    result = check_disk(low)
    assert (result.outcome, result.detail) == ("fail", f"100 MB free in {tmp_path}, 512 MB needed")


@pytest.mark.parametrize(
    "work_dir,outcome,said",
    [
        ("/nowhere/at/all", "fail", "the directory /nowhere/at/all does not exist"),
        ("distconv-engine-work", "skip", "no engine has worked in the current directory"),
        (None, "skip", "the engine's work directory is not known"),
    ],
)
def test_a_missing_work_directory_never_passes(
    work_dir: str | None, outcome: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = check_disk(EngineReport(work_dir=work_dir, free_mb=9e9, reserve_mb=512.0))
    assert result.outcome == outcome
    assert said in result.detail


def test_without_an_engine_the_given_directory_is_checked_for_space(tmp_path: Path) -> None:
    result = check_disk(None, tmp_path, free_mb=lambda folder: 7e3 if folder == tmp_path else 0.0)
    assert (result.outcome, result.detail) == ("ok", f"7.00 GB free in {tmp_path}")


ECHO = """
import json, os, sys
names = ("DISTCONV_CONFIG", "DISTCONV_WORK_DIR")
print(json.dumps({"work_dir": "|".join(os.environ.get(name, "-") for name in names)}))
"""


@pytest.mark.parametrize(
    "environ,given,config,work_dir",
    [
        ({}, None, "engine.toml", "state"),
        ({}, "mine", "engine.toml", "mine"),
        ({"DISTCONV_WORK_DIR": "/w"}, None, "engine.toml", "/w"),
        ({"DISTCONV_CONFIG": "/c"}, None, "/c", "-"),
    ],
)
def test_an_installed_engine_is_checked_with_the_settings_of_its_unit(
    environ: dict[str, str], given: str | None, config: str, work_dir: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "echoing" / "self_test").mkdir(parents=True)
    (tmp_path / "echoing" / "self_test" / "report.py").write_text(ECHO)
    (tmp_path / "engine.toml").touch()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(machine, "PACKAGE", "echoing")
    monkeypatch.setattr(machine, "UNIT_CONFIG", tmp_path / "engine.toml")
    monkeypatch.setattr(machine, "UNIT_WORK_DIR", tmp_path / "state")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    report = machine.ask_engine(tmp_path / given if given else None)
    assert report is not None
    assert str(report.work_dir).replace(f"{tmp_path}/", "") == f"{config}|{work_dir}"


def test_without_an_engine_the_temporary_directory_is_checked_for_space() -> None:
    assert check_disk(None).outcome == "ok"
    result = check_disk(None, free_mb=lambda folder: 3.0)
    assert result.outcome == "fail"
    assert "TMPDIR" in result.remedy


def test_an_engine_package_that_does_not_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGE", "json")
    report = machine.ask_engine()
    assert report is not None
    assert "the engine package does not run: " in str(report.error)
    monkeypatch.setattr(machine, "PACKAGE", "no_such_package")
    assert machine.ask_engine() is None


def test_an_encoder_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hanging" / "self_test").mkdir(parents=True)
    (tmp_path / "hanging" / "self_test" / "report.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(machine, "PACKAGE", "hanging")
    monkeypatch.setattr(machine, "SELFTEST_S_MAX", 0.3)
    report = machine.ask_engine()
    assert report is not None
    assert report.error == "the test encodes took longer than 0.3 s"


@pytest.mark.e2e
def test_the_engines_self_test_finds_a_real_ffmpeg_and_its_work_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISTCONV_WORK_DIR", str(tmp_path / "not" / "made" / "yet"))
    report = machine.ask_engine()
    assert report is not None
    assert report.error is None
    assert {"h264", "hevc", "vp9"} <= report.encoders.keys()
    assert (report.work_dir, (report.free_mb or 0) > 0) == (str(tmp_path / "not/made/yet"), True)
    monkeypatch.setenv("DISTCONV_FFMPEG", sys.executable)
    broken = machine.ask_engine()
    assert broken is not None
    assert "does not run" in str(broken.error)
