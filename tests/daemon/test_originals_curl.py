"""The curl commands of the original's README, run as they are printed against a real daemon.

They are read from that README if it is next to the checkout, else from ours, which has the same
examples. Only the port, the key and the job id are replaced.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.daemon.kit import KEY, start

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

HERE = Path(__file__).resolve().parents[2]
SOURCES = [HERE.parent / "shared" / "seed" / "README.distconv.md", HERE / "README.md"]
PRINTED_ID = "1704067200123456_0"


def commands(text: str) -> list[str]:
    """Return each curl command in the text, with the lines that continue it."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for block in blocks:
        # A command continues after a backslash and inside quotes.
        found += re.findall(r"^curl(?:\\\n|'[^']*'|\"[^\"]*\"|[^\n'\"])*", block, re.MULTILINE)
    # `-i` shows an error on purpose; these are tested with the replies that the README prints.
    return [c for c in found if "localhost:8080" in c and not c.startswith("curl -i")]


@pytest.mark.parametrize("source", SOURCES, ids=["the original's", "ours"])
def test_every_curl_command_of_the_readme_works_as_it_is_printed(
    tmp_path: Path, source: Path
) -> None:
    if not source.exists():
        pytest.skip(f"{source.name} is not here")
    printed = commands(source.read_text("utf-8"))
    assert len(printed) >= 8
    job_id = PRINTED_ID
    with start(tmp_path) as daemon:
        for command in printed:
            text = command.replace("localhost:8080", f"localhost:{daemon.port}")
            text = re.sub(r"your_(api_)?key", KEY, text).replace(PRINTED_ID, job_id)
            # Only an option to fail on an error and one to be quiet are added.
            text = text.replace("curl ", "curl -sS --fail-with-body ", 1)
            done = subprocess.run(
                ["bash", "-c", text], capture_output=True, text=True, timeout=20, check=False
            )
            if "/fail" in command:
                # In the README's order, the failure is reported for a job that is completed already.
                answer = json.loads(done.stdout)
                assert answer.get("status") == 409 or "message" in answer, done
                continue
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if "-X POST" in command and "/jobs/ " in command:
                job_id = json.loads(done.stdout)["job_id"]
        assert daemon.jobs()[job_id]["source_url"] == "http://example.com/input.mp4"
