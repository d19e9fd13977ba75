"""Check with Schemathesis that a live daemon agrees with its OpenAPI document.

Schemathesis sends valid and invalid requests and compares every reply with the document: status,
headers, content type, body. schemathesis.toml and schemathesis_hooks.py say what is excluded, and why;
`/events` and the websocket never end and have their own tests. DISTCONV_API_EXAMPLES makes the run
longer.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.daemon.kit import KEY, start
from tests.docs.pages import ROOT

EXAMPLES = os.environ.get("DISTCONV_API_EXAMPLES", "12")


@pytest.mark.e2e
@pytest.mark.slow
def test_schemathesis_finds_no_difference_between_the_daemon_and_its_document(
    tmp_path: Path,
) -> None:
    with start(tmp_path, "--store", "memory", "--log-level", "ERROR") as daemon:
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "--config-file"),
            *(str(ROOT / "tests" / "api" / "schemathesis.toml"), "run"),
            f"http://127.0.0.1:{daemon.port}/openapi.json",
            *("--header", f"X-API-Key: {KEY}", "--no-color", "--request-timeout", "10"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES),
            *("--generation-deterministic", "--exclude-path-regex", "(/ws|/events)$"),
        ]
        environ = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
        status, _ = daemon.ask("GET", "/readyz")
    assert done.returncode == 0, done.stdout + done.stderr
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated, done.stdout
    assert int(generated[1]) > 1000
    assert status == 200
    assert "Traceback" not in daemon.log
