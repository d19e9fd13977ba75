"""The command `distconvd` as a person uses it: flags, variables, exit codes, output."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from tests.daemon.kit import COMMAND, JOB, KEY, environment, run, start

from distconvd import __version__

pytestmark = pytest.mark.e2e


def test_help_teaches_by_example(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for flag in ("--help", "--api-key KEY", "--port N", "--state-file", "--config", "examples:"):
        assert flag in done.stdout
    assert done.stderr == ""


def test_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"distconvd {__version__}\n")


def test_config_shows_every_value_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('store = "spool"\n[dispatch]\nlease_s = 9\n')
    done = run(
        "--config", "d.toml", "--log-level", "debug", "config",
        cwd=tmp_path, DISTCONV_API_KEY="hush-hush",
    )  # fmt: skip
    assert done.returncode == 0
    shown = {
        line.split(" = ")[0].strip(): line.split(" = ")[1] for line in done.stdout.splitlines()
    }
    assert shown["port"] == "8080  # default"
    assert shown["state_file"] == '"dispatch_server_state.json"  # default'
    assert shown["api_key"] == "********  # environment DISTCONV_API_KEY"
    assert shown["store"] == '"spool"  # file d.toml'
    assert shown["dispatch.lease_s"] == "9.0  # file d.toml"
    assert shown["log_level"] == '"DEBUG"  # flag'
    assert "hush" not in done.stdout + done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.toml"]


def test_plugins_are_listed_with_their_hooks(tmp_path: Path) -> None:
    done = run("plugins", cwd=tmp_path)
    assert done.returncode == 0
    assert "size-aware" in done.stdout
    assert "  distconvd_register_policies" in done.stdout


@pytest.mark.parametrize(
    "flags,code,said",
    [
        (["--host", "0.0.0.0"], 78, "without a key"),
        (["--host", "::"], 78, "without a key"),
        (["--config", "missing.toml"], 78, "cannot read the configuration file missing.toml"),
        (["--config", "bad.toml"], 78, "configuration of dispatch.leese_s (from file bad.toml)"),
        (["--config", "broken.toml"], 78, "broken.toml is not valid TOML"),
        (["--store", "nosuch"], 78, "no store 'nosuch'; installed: json, memory, spool"),
        (["--policy", "nosuch"], 78, "no policy 'nosuch'"),
        (["--auth", "nosuch"], 78, "no authenticator 'nosuch'"),
        (["--plugin", "missing.py"], 78, "--plugin missing.py: cannot be loaded"),
        (["--port", "70000"], 78, "port is 70000"),
        (["--port", "eighty"], 2, "invalid int value: 'eighty'"),
        (["--log-level", "LOUD"], 2, "invalid choice"),
        (["--nonsense"], 2, "unrecognized arguments"),
        (["--state-file", "bad.toml/state.json", "--port", "0"], 1, "bad.toml"),
        (["--host", "192.0.2.1", "--port", "0", "--api-key", "k"], 1, "check --host"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line_and_exits(
    tmp_path: Path, flags: list[str], code: int, said: str
) -> None:
    (tmp_path / "bad.toml").write_text("[dispatch]\nleese_s = 5\n")
    (tmp_path / "broken.toml").write_text("port = \n")
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported_and_the_store_is_released(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    with start(tmp_path):
        pass


def test_the_originals_variables_set_key_port_state_file_and_log_level(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(
            DISTCONV_API_KEY=KEY, DISTCONV_PORT=str(port), DISTCONV_STATE_FILE="here.json",
            DISTCONV_LOG_LEVEL="WARN", DISTCONV_HOST="127.0.0.1",
        ),
    )  # fmt: skip
    assert process.stdout is not None
    assert (
        process.stdout.readline() == f"distconvd {__version__} ready on http://127.0.0.1:{port}\n"
    )
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert (process.returncode, log) == (0, "")
    state = json.loads((tmp_path / "here.json").read_text())
    assert (state["jobs"], state["engines"]) == ({}, {})


@pytest.mark.parametrize("level,is_logged", [("DEBUG", True), ("INFO", True), ("WARN", False)])
def test_the_log_level_decides_whether_access_lines_are_written(
    tmp_path: Path, level: str, is_logged: bool
) -> None:
    with start(tmp_path, DISTCONV_LOG_LEVEL=level) as daemon:
        daemon.submit()
        assert daemon.stop() == 0
    assert ("POST /jobs/ 200" in daemon.log) == is_logged


def test_an_access_line_has_what_the_originals_log_recipes_look_for(tmp_path: Path) -> None:
    with start(tmp_path) as daemon:
        job = daemon.submit()
        daemon.ask("GET", "/jobs/1_0")
        assert daemon.stop() == 0
    lines = [line for line in daemon.log.splitlines() if " ms total" in line]
    assert len(lines) == 2
    assert " INFO distconvd.access POST /jobs/ 200 " in lines[0]
    assert f"job_id={job['job_id']}" in lines[0]
    assert "key_name=api-key" in lines[0]
    assert " GET /jobs/1_0 404 " in lines[1]


def test_json_logs_are_one_object_per_line(tmp_path: Path) -> None:
    with start(tmp_path, "--log-format", "json") as daemon:
        daemon.submit()
        assert daemon.stop() == 0
    entries = [json.loads(line) for line in daemon.log.splitlines()]
    (access,) = [e for e in entries if e["logger"] == "distconvd.access"]
    assert (access["method"], access["path"], access["status"]) == ("POST", "/jobs/", 200)
    assert access["message"].endswith(" ms total")
    assert {"time", "level", "duration_ms", "request_id", "peer", "key_name"} <= access.keys()


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_secret_is_ever_logged(tmp_path: Path, style: str) -> None:
    wrong = "wrong-" + KEY[::-1]
    with start(tmp_path, "--log-format", style, DISTCONV_LOG_LEVEL="DEBUG") as daemon:
        daemon.submit()
        for headers in (
            {"X-API-Key": "", "Authorization": f"Bearer {KEY}"},
            {"X-API-Key": wrong},
            {"X-API-Key": "", "Authorization": f"Bearer {wrong}"},
            {"X-API-Key": "", "Authorization": f"Basic {wrong}"},
        ):
            daemon.ask("GET", "/jobs/", None, headers)
        daemon.ask("GET", f"/jobs/?api_key={KEY}&key={wrong}")
        daemon.ask("GET", f"/nothing?api_key={KEY}")
        daemon.ask("POST", "/jobs/", b"{" + KEY.encode())
        assert daemon.stop() == 0
    assert "ms total" in daemon.log
    assert KEY not in daemon.log
    assert wrong not in daemon.log
    assert KEY not in daemon.first_line


def test_without_a_key_this_machine_is_served(tmp_path: Path) -> None:
    with start(tmp_path, key=None) as daemon:
        assert daemon.ask("POST", "/jobs/", JOB, {"X-API-Key": ""})[0] == 200
