"""The example plugin can be installed, tested and served as its README says; and as one file."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
EXAMPLE = Path(__file__).parents[2] / "contrib" / "example-plugin"
KEY = "example-key"
DEAR_NEVER = "plugin.cheap-hours.prices=" + json.dumps([0.1] * 24)
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith(("DISTCONV_", "PYTHON"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example, so that nothing is built in the work tree."""
    kept = shutil.ignore_patterns("__pycache__", "build", ".*")
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example-plugin", ignore=kept))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A new environment with the packages of this one and no other; no network is needed."""
    home = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    printed = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    base = sysconfig.get_path("purelib")
    (Path(printed.stdout.strip()) / "base.pth").write_text(
        f"import site; site.addsitedir({base!r})\n"
    )
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-m", *arguments], cwd=folder, env=ENVIRON, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def serving(python: Path, folder: Path, *flags: str) -> Iterator[str]:
    """Run a daemon in `folder` and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-c", "from distconvd.main import main; main()"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, *flags]
    log = folder / "daemon.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRON, stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None
    try:
        assert "ready" in process.stdout.readline(), log.read_text()
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def call(url: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as reply:
            return reply.status, json.loads(reply.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def audit(url: str, name: str) -> None:
    """Check that the plugin is listed, its route answers, its check rejects, its policy places."""
    listed = {plugin["name"]: plugin for plugin in call(f"{url}/plugins")[1]}
    assert "distconvd_register_policies" in listed[name]["hooks"]
    assert call(f"{url}/cheap-hours")[1]["price"] == 0.1
    job = {"source_url": "http://h/a.mov", "target_codec": "h264", "job_size": 20_000}
    status, problem = call(f"{url}/jobs/", {**job, "priority": 2})
    assert (status, problem["field"]) == (400, "priority")
    for engine, seconds, tags in (("fast", 1.0, []), ("sunny", 5.0, ["solar"])):
        beat = {"engine_id": engine, "benchmark_time": seconds, "tags": tags, "status": "idle"}
        assert call(f"{url}/engines/heartbeat", beat)[0] == 200
    assert call(f"{url}/jobs/", job)[0] == 200
    assert call(f"{url}/assign_job/", {})[1]["assigned_engine"] == "sunny"


def test_the_example_is_installed_into_a_clean_environment_tested_and_used_by_a_daemon(
    folder: Path, python: Path
) -> None:
    printed = ""
    for command in readme_commands(folder, "## 3. Test it"):
        words = command.removeprefix("python -m ").split()
        printed = run(python, folder, *words)
    assert re.search(r"\b\d+ passed", printed)
    assert "cheap-hours" not in run(Path(sys.executable), folder.parent, "pip", "list")
    with serving(python, folder, "--policy", "cheap-hours", "--set", DEAR_NEVER) as url:
        audit(url, "cheap-hours")


def test_the_example_is_used_as_a_single_file(folder: Path) -> None:
    flags = ["--store", "memory", "--plugin", "./distconv_cheap_hours.py"]
    flags += ["--policy", "cheap-hours"]
    assert readme_commands(folder, "## 1.")[0] == " ".join(["distconvd", *flags])
    with serving(Path(sys.executable), folder, *flags, "--set", DEAR_NEVER) as url:
        audit(url, "distconv_cheap_hours")


def readme_commands(folder: Path, heading: str) -> list[str]:
    """Return the commands that a section of the README shows."""
    text = (folder / "README.md").read_text()
    section = text[text.index(heading) :].partition("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
            for line in block.splitlines()]  # fmt: skip
