"""Test that `distconv doctor` prints a line for each check, and its exit code."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from tests.client.doctor.kit import CHECKS, Site
from tests.client.fake import served

from distconv_client.doctor import machine
from distconv_client.main import cli


@pytest.fixture
def call(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setattr(machine, "PACKAGE", "no_such_package")
    with served(site) as url:
        yield lambda *words: CliRunner().invoke(cli, ["doctor", "--server", url, *words])


def test_the_command_prints_a_line_a_check_and_exits_0(call: Callable[..., Result]) -> None:
    result = call()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(CHECKS)
    assert lines[0] == "ok    name       127.0.0.1 resolves to 127.0.0.1"


def test_the_command_exits_1_on_a_failure_with_the_remedy_below_it(
    call: Callable[..., Result], site: Site
) -> None:
    site.engines = []
    result = call()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("fail"))
    assert lines[at] == "fail  engines    no engine has registered"
    assert lines[at + 1].strip().startswith("Start one: ")


def test_the_command_prints_json(call: Callable[..., Result]) -> None:
    documents = [json.loads(line) for line in call("--json").stdout.splitlines()]
    assert [document["check"] for document in documents] == list(CHECKS)


@pytest.mark.parametrize(
    "words",
    [
        ["--timeout", "0"],
        ["--clip-dir", "/no/such/folder"],
        ["--work-dir", "/no/such/folder"],
        ["--server", "ftp://x"],
    ],
)
def test_a_wrong_flag_exits_2(call: Callable[..., Result], words: list[str]) -> None:
    assert call(*words).exit_code == 2
