"""A real release, built from this checkout without a network: its contents, and a run."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests.daemon.kit import Running, environment
from tests.operators.staging import (
    INSTALL,
    PYTHON,
    ROOT,
    SAMPLES,
    done,
    mode,
    snapshot,
    wants,
)

from distconvd import __version__

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

WHEELHOUSE = ROOT / ".wheelhouse"
UNITS = ("distconv-dispatch.service", "distconv-dispatch.socket", "distconv-engine@.service")


class Staged:
    """A staged tree, and the output of the install."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said = done(INSTALL, "--root", root, "--wheelhouse", WHEELHOUSE, "--python", PYTHON)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Install once, for real."""
    return Staged(tmp_path_factory.mktemp("release") / "root")


def test_a_release_has_programs_configuration_state_and_units_and_enables_the_daemon(
    staged: Staged,
) -> None:
    root = staged.root
    links = sorted(path.name for path in (root / "usr/local/bin").iterdir())
    assert links == ["distconv", "distconv-engine", "distconvd"]
    for name in ("distconvd.toml", "dispatch.env", "engine.toml", "engine.env"):
        assert (root / "etc/distconv" / name).read_bytes() == (SAMPLES / name).read_bytes()
        assert mode(root / "etc/distconv" / name) == "0640"
    assert mode(root / "etc/distconv") == "0750"
    assert mode(root / "etc/distconv/credentials") == "0700"
    assert mode(root / "var/lib/distconv") == "0750"
    for name in UNITS:
        unit = root / "etc/systemd/system" / name
        assert unit.read_bytes() == (SAMPLES / name).read_bytes()
    assert wants(root, "multi-user.target") == ["distconv-dispatch.service"]


def test_every_program_and_file_that_the_units_name_exists(staged: Staged) -> None:
    text = "".join((SAMPLES / unit).read_text() for unit in UNITS)
    named = set(re.findall(r"(/(?:opt|etc)/distconv/[\w./-]*\w)(?![\w./-]|%)", text))
    assert len(named) > 8
    assert [path for path in named if not (staged.root / path[1:]).exists()] == []


def test_the_admin_key_is_shown_once_and_the_engines_key_is_in_a_file_of_root(
    staged: Staged,
) -> None:
    etc = staged.root / "etc/distconv"
    known = {
        record["sha256"]: record["roles"]
        for record in json.loads((etc / "keys.json").read_text())["keys"]
    }
    (shown,) = re.findall(r"dck_\S+", staged.said)
    engine = (etc / "credentials/engine.key").read_text().strip()
    roles = [known[hashlib.sha256(key.encode()).hexdigest()] for key in (shown, engine)]
    assert roles == [["admin"], ["engine", "read"]]
    assert mode(etc / "credentials/engine.key") == "0600"
    assert mode(etc / "keys.json") == "0640"
    everywhere = "".join(content for _, content in snapshot(staged.root).values())
    assert shown not in everywhere


def test_a_moved_release_serves_with_its_key(staged: Staged, tmp_path: Path) -> None:
    shutil.copytree(staged.root, tmp_path / "moved", symlinks=True)
    opt = tmp_path / "moved/opt/distconv/current"
    etc = tmp_path / "moved/etc/distconv"
    assert f" {__version__}\n" in done(opt / "bin/distconv", "--version")
    assert str(staged.root) not in (opt / "bin/distconvd").read_text()
    words = [str(opt / "bin/distconvd"), "--config", str(etc / "distconvd.toml")]
    words += ["--host", "127.0.0.1", "--port", "0", "--key-file", str(etc / "keys.json")]
    words += ["--state-file", str(tmp_path / "state.json")]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            daemon = Running(process, tmp_path / "log")
            daemon.wait_until_ready()
            key = (etc / "credentials/engine.key").read_text().strip()
            assert daemon.ask("GET", "/jobs/", headers={"X-API-Key": key})[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
