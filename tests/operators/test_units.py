"""The units and samples: systemd and the programs accept them, and the documents agree."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.docs import pages
from tests.operators.staging import CONTRIB, INSTALL, ROOT, SAMPLES, UNINSTALL, run

from distconv_engine.config import Config as EngineConfig
from distconv_engine.config import load_config as load_engine
from distconvd.config import Config, load_config

DISPATCH = "distconv-dispatch.service"
ENGINE = "distconv-engine@.service"
UNITS = (DISPATCH, "distconv-dispatch.socket", ENGINE)
DROP_INS = sorted((SAMPLES / "drop-ins").iterdir())
README = (CONTRIB / "README.md").read_text()

wants_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def read_unit(path: Path) -> configparser.RawConfigParser:
    """Read a unit, the last of several values of one key winning."""
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # as documented
    unit.read_string(path.read_text().replace("\\\n", ""))
    return unit


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a root with our units, the targets that they name, and stand-ins for the programs."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in UNITS:
        shutil.copy(SAMPLES / name, units)
    for name in ("sysinit", "basic", "shutdown", "multi-user", "sockets", "network-online"):
        (units / f"{name}.target").write_text("[Unit]\nDescription=x\n")
    for name in ("remote-fs", "time-sync"):
        (units / f"{name}.target").write_text("[Unit]\nDescription=x\n")
    programs = re.findall(r"^Exec\w+=(/\S+)", "".join((units / n).read_text() for n in UNITS), re.M)
    for program in programs:
        path = tmp_path / program[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


@wants_systemd
def test_systemd_analyze_finds_no_fault_in_the_units(tree: Path) -> None:
    names = [DISPATCH, "distconv-dispatch.socket", "distconv-engine@1.service"]
    ended = run("systemd-analyze", "verify", f"--root={tree}", *names)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@wants_systemd
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_systemd_analyze_finds_no_fault_in_the_drop_ins(tree: Path, drop_in: Path) -> None:
    (place,) = re.findall(r"Copy to /(\S+\.d)/", drop_in.read_text())
    (tree / place).mkdir()
    shutil.copy(drop_in, tree / place)
    unit = Path(place).name.removesuffix(".d").replace("@.", "@1.")
    ended = run("systemd-analyze", "verify", f"--root={tree}", unit)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@wants_systemd
@pytest.mark.parametrize("name, most", [(DISPATCH, 15), (ENGINE, 20)])
def test_the_units_are_exposed_no_more_than_documented(name: str, most: int) -> None:
    ended = run(
        "systemd-analyze", "security", "--offline=true", f"--threshold={most}", SAMPLES / name
    )
    assert ended.returncode == 0, ended.stdout[-200:]


def test_the_daemons_unit_has_the_limits_of_the_originals_tuning_section() -> None:
    service = read_unit(SAMPLES / DISPATCH)["Service"]
    assert service["LimitNOFILE"] == "65536"
    tuned = read_unit(SAMPLES / "drop-ins/dispatch-high-volume.conf")["Service"]
    asked = {
        "LimitNOFILE": "65536",
        "CPUAffinity": "0-3",
        "IOSchedulingClass": "1",
        "IOSchedulingPriority": "4",
    }
    assert dict(tuned) == asked


@pytest.mark.parametrize("name", [DISPATCH, ENGINE])
def test_a_stop_signals_only_the_main_process_and_wrong_configuration_is_final(
    name: str,
) -> None:
    service = read_unit(SAMPLES / name)["Service"]
    assert service["KillMode"] == "mixed"
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["RestartPreventExitStatus"] == "2 78"
    assert service["User"] == "distconv"


def test_an_ffmpeg_that_uses_all_memory_is_killed_alone() -> None:
    service = read_unit(SAMPLES / ENGINE)["Service"]
    assert service["OOMPolicy"] == "continue"
    assert service["MemoryMax"].endswith("%")


def test_every_setting_in_the_samples_exists_and_has_its_default(tmp_path: Path) -> None:
    sample = re.sub(r"^# (?=\w+ = )", "", (SAMPLES / "distconvd.toml").read_text(), flags=re.M)
    sample = re.sub(r"^# (?=\[\w+\]$)", "", sample, flags=re.M)
    (tmp_path / "d.toml").write_text(sample)
    given = load_config({"config": str(tmp_path / "d.toml")}, {}).config
    for name in ("port", "store", "policy", "log_level", "log_format", "dispatch", "edge"):
        assert getattr(given, name) == getattr(Config(), name), name
    sample = re.sub(r"^# (?=\w+ = )", "", (SAMPLES / "engine.toml").read_text(), flags=re.M)
    (tmp_path / "e.toml").write_text(sample.replace("/srv/media", str(tmp_path)))
    engine = load_engine(["--config", str(tmp_path / "e.toml")], {}, "").config
    for name in ("server", "slots", "drain_s", "niceness"):
        assert getattr(engine, name) == getattr(EngineConfig(), name), name


@pytest.mark.parametrize("file", ["dispatch.env", "engine.env"])
def test_every_variable_in_the_samples_exists_and_is_commented_out(file: str) -> None:
    lines = (SAMPLES / file).read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    known = Config.__struct_fields__ if file == "dispatch.env" else EngineConfig.__struct_fields__
    named = [found[1] for line in lines if (found := re.match(r"#DISTCONV_(\w+)=", line))]
    assert named
    assert [name for name in named if name.lower() not in known] == []


@pytest.mark.parametrize(
    "path", [SAMPLES / DISPATCH, SAMPLES / ENGINE, *DROP_INS], ids=lambda p: p.name
)
def test_every_variable_and_flag_in_a_unit_exists(path: Path) -> None:
    text = path.read_text()
    known = {*Config.__struct_fields__, *EngineConfig.__struct_fields__, "config"}
    flags = re.findall(r" --([a-z-]+) ", re.sub(r"(?m)^ExecStartPre=.*$", "", text))
    named = [name.replace("-", "_") for name in flags]
    named += [name.lower() for name in re.findall(r"DISTCONV_(\w+)=", text)]
    assert [name for name in named if name not in known] == []


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    ended = subprocess.run(
        ["shellcheck", "-x", INSTALL, UNINSTALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == ""


# ------------------------------------------------------------------------------------ the document


def test_the_readme_names_everything_in_contrib() -> None:
    named = set(re.findall(r"^\| (`contrib/\S+.*?) \|", README, re.M))
    places = {p.rstrip("/") for row in named for p in re.findall(r"`contrib/([\w.-]+)/?`", row)}
    there = {path.name for path in CONTRIB.iterdir()} - {"README.md", "common.sh"}
    assert places == there
    drop_ins = set(re.findall(r"^\| `(\S+\.conf)` \|", README, re.M))
    assert drop_ins == {path.name for path in DROP_INS}


def test_the_readme_shows_the_steps_that_the_scripts_have() -> None:
    for script in (INSTALL, UNINSTALL):
        steps = re.findall(r'^ *step \w+ "(.*)"$', script.read_text(), re.M)
        assert len(steps) > 5
        for text in steps:
            said = text.replace("$account", "distconv").replace("$command_dir", "/usr/local/bin")
            assert said.replace("$release_id", "0.1.0-fa26a026377a") in README


def test_the_readme_uses_options_that_the_scripts_have() -> None:
    for block in pages.blocks(README):
        for line in block.text.splitlines():
            for script in (INSTALL, UNINSTALL):
                if block.language == "sh" and script.name in line:
                    source = script.read_text()
                    assert [o for o in re.findall(r"--[\w-]+", line) if o not in source] == []
