"""Run the curl examples of the documents against a real daemon and compare the replies."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.docs import pages
from tests.docs.conftest import Daemon
from tests.docs.shown import Shown, is_json, parse_http

PAGES = ["README.md", "docs/protocol.md"]
ORIGINALS = ["/jobs/", "/assign_job/", "/engines/heartbeat"]

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("bash")), reason="the examples need bash and curl"
)


def examples(name: str) -> Iterator[tuple[pages.Block, pages.Block | None]]:
    """Yield each curl command of a page with the reply that is shown for it, if one is."""
    found = [
        b for b in pages.blocks(pages.read(name)) if b.language in ("bash", "json", "jsonl", "http")
    ]
    for number, block in enumerate(found):
        if block.language == "bash" and "curl" in block.text:
            after = found[number + 1] if number + 1 < len(found) else None
            yield block, after if after is not None and after.language != "bash" else None


def run(daemon: Daemon, command: str) -> tuple[int, dict[str, str], str]:
    """Run a curl command; return status, headers and body of its (last) reply."""
    heads = daemon.folder / "heads"
    command_line = command.replace("localhost:8080", f"127.0.0.1:{daemon.port}")
    script = f'curl() {{ command curl -sS --max-time 20 -D "{heads}" "$@"; }}\n{command_line}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=daemon.folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    status, headers, body = parse_http(heads.read_text())
    body = parse_http(done.stdout)[2] if done.stdout.startswith("HTTP/1.1 ") else done.stdout
    return status, headers, body


def lines_of(text: str) -> list[Any]:
    """Return the documents of a text with one a line."""
    return [json.loads(line) for line in text.splitlines()]


def check(shown: Shown, reply: pages.Block | None, got: tuple[int, dict[str, str], str]) -> None:
    status, headers, body = got
    if reply is None:
        assert status < 300, body
        return
    wanted_status, wanted_body = 200, reply.text
    wanted_headers: dict[str, str] = {}
    if reply.language == "http":
        wanted_status, wanted_headers, wanted_body = parse_http(reply.text)
    assert status == wanted_status, body
    for name, value in wanted_headers.items():
        assert name in headers, f"no header {name}"
        shown.learn(value, headers[name])
        assert shown.made_real(value) == headers[name]
    if reply.language == "jsonl":
        assert shown.differences(lines_of(wanted_body), lines_of(body)) == [], body
    elif is_json(wanted_body):
        assert shown.differences(json.loads(wanted_body), json.loads(body)) == [], body
    else:
        assert wanted_body.strip() == body.strip()


@pytest.mark.e2e
@pytest.mark.parametrize("name", PAGES)
def test_every_curl_example_gets_the_reply_that_the_page_shows(
    name: str, start_daemon: Callable[..., Daemon]
) -> None:
    daemon = start_daemon("--set", "plugin.media-store.reserve_bytes=0")
    (daemon.folder / "output.mp4").write_bytes(b"not really a film")
    shown = Shown()
    for command, reply in examples(name):
        try:
            check(shown, reply, run(daemon, shown.made_real(command.text)))
        except AssertionError as error:
            raise AssertionError(f"{name}, line {command.line}: {error}") from error


def test_the_readme_has_the_examples_of_the_original() -> None:
    commands = "".join(block.text for block, _ in examples("README.md"))
    for path in (*ORIGINALS, "/complete", "/fail"):
        assert re.search(rf"localhost:8080\S*{re.escape(path)}", commands), path


def test_every_documented_reply_is_json_or_follows_a_command() -> None:
    for name in PAGES:
        for block in pages.blocks(pages.read(name)):
            if block.language == "json":
                assert is_json(block.text), f"{name}, line {block.line}"


def test_a_difference_between_documented_and_real_reply_is_found() -> None:
    shown = Shown()
    assert (
        shown.differences({"job_id": "1704067200123456_0"}, {"job_id": "1795374385401000_7"}) == []
    )
    assert shown.made_real("Job 1704067200123456_0") == "Job 1795374385401000_7"
    assert shown.differences({"a": 1, "…": "…"}, {"a": 1, "b": 2}) == []
    assert shown.differences({"a": 1}, {"a": 1, "b": 2})
    assert shown.differences({"a": 1, "b": 2}, {"a": 1})
    assert shown.differences({"a": {"b": 1}}, {"a": {"b": True}})
    assert shown.differences([1], [1, 2])
    assert shown.differences({"ended_at": 1}, {"ended_at": None})
