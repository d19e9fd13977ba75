"""Check that the programs accept the command lines that the documents show."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from tests.client.parsing import parse
from tests.docs import pages

from distconv_client.main import cli
from distconv_engine.config import make_parser
from distconvd.main import parser

_CALL = re.compile(
    r"\s*(?:sudo (?:-u \w+ )?)?(?:[A-Z_]+=\S+ )*(?:\S*/)?(distconvd|distconv-engine|distconv)(?=\s|$)"
)
"""The beginning of a line that calls one of our programs."""


def shell_lines(text: str) -> Iterator[str]:
    """Yield the lines of a page's shell blocks, joined where they go on, without comments."""
    for block in pages.blocks(text):
        if block.language in ("sh", "bash"):
            yield from block.text.replace("\\\n", " ").splitlines()


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (page, words) of each call of one of our programs."""
    for page in pages.PAGES:
        for line in shell_lines(page.read_text(encoding="utf-8")):
            for part in re.split(r"\s(?:\||&&)\s", line):
                found = _CALL.match(part)
                if found:
                    rest = re.sub(r"\s[<>] \S+", "", part[found.end() :])  # for the shell alone
                    yield page.name, [found[1], *shlex.split(rest, comments=True)]


COMMANDS = list(commands())


@pytest.mark.parametrize("page, words", COMMANDS, ids=[f"{p}: {' '.join(w)}" for p, w in COMMANDS])
def test_every_documented_command_parses(page: str, words: list[str]) -> None:
    words = [word for word in words if word not in ("&", ">", "2>&1")]
    try:
        if words[0] == "distconvd":
            parser().parse_args(words[1:])
        elif words[0] == "distconv-engine":
            make_parser("").parse_args(words[1:])
        else:
            parse(cli, words)
    except SystemExit as end:
        if end.code != 0:
            pytest.fail(f"{page}: {shlex.join(words)}: it exits {end.code}")
    except click.exceptions.Exit:
        pass  # --help


def test_every_documented_make_target_exists() -> None:
    makefile = pages.read("Makefile")
    for page in pages.PAGES:
        for line in shell_lines(page.read_text(encoding="utf-8")):
            found = re.match(r"make (\w[\w-]*)", line)
            assert not found or re.search(rf"^{found[1]}:", makefile, re.MULTILINE), line


def help_of(command: str) -> str:
    """Return what `… --help` prints, 80 columns wide."""
    program, *rest = command.split()
    if program == "distconv":
        return CliRunner().invoke(cli, rest, prog_name="distconv", terminal_width=80).output
    module = {"distconvd": "distconvd.main", "distconv-engine": "distconv_engine.main"}[program]
    script = f"import sys; sys.argv[0] = {program!r}; from {module} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *rest],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


def help_blocks() -> Iterator[tuple[str, str, str]]:
    """Yield page, command and output of each block that shows a help page."""
    for page in pages.PAGES:
        for block in pages.blocks(page.read_text(encoding="utf-8")):
            first, _, output = block.text.partition("\n")
            if block.language == "console" and first.endswith("--help"):
                yield str(page.relative_to(pages.ROOT)), first.removeprefix("$ "), output


HELP_BLOCKS = list(help_blocks())


@pytest.mark.parametrize("page, command, output", HELP_BLOCKS, ids=[c for _, c, _ in HELP_BLOCKS])
def test_every_documented_help_page_is_the_real_one(page: str, command: str, output: str) -> None:
    real = help_of(command).rstrip() + "\n"
    if os.environ.get("DISTCONV_UPDATE_DOCS"):
        place = pages.ROOT / page
        text = place.read_text(encoding="utf-8")
        place.write_text(text.replace(f"$ {command}\n{output}", f"$ {command}\n{real}"), "utf-8")
        return
    assert output == real, "run DISTCONV_UPDATE_DOCS=1 pytest tests/docs to show the new help"


def test_the_last_line_of_make_test_is_shown_as_it_is() -> None:
    from tools.run_tests import Part, summary

    line = next(b.text.strip() for b in pages.blocks(pages.read("README.md")) if "alone)" in b.text)
    passed, skipped, minutes, seconds, parallel, number, alone = map(int, re.findall(r"\d+", line))
    assert passed + skipped == parallel + alone
    first = {"failed": 0, "passed": parallel - skipped, "skipped": skipped, "errors": 0}
    second = {"failed": 0, "passed": alone, "skipped": 0, "errors": 0}
    parts = [Part(f"in parallel by {number}", 0, first), Part("alone", 0, second)]
    assert summary(parts, minutes * 60 + seconds) == line
    assert minutes < 6


def test_the_documented_demo_output_matches_the_demo() -> None:
    from tools import demo

    shown = next(b.text for b in pages.blocks(pages.read("README.md")) if "Results in" in b.text)
    head = next(line for line in shown.splitlines() if line.startswith("OUTPUT"))
    assert head.split() == list(demo.COLUMNS[:-1])
    for wanted in demo.JOBS:
        stem, _, _ = wanted.clip.rpartition(".")
        assert re.search(rf"^{stem}-{wanted.codec}\.\w+ +{wanted.codec} ", shown, re.MULTILINE)
