"""Test the help pages: every command has one, every example parses, every flag has help."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from tests.client.parsing import parse

from distconv_client import help_examples
from distconv_client.main import cli


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ALL = list(commands())


def examples(path: tuple[str, ...]) -> list[str]:
    page = CliRunner().invoke(cli, [*path, "--help"], prog_name="distconv").output
    section = page.partition("Examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in section.splitlines()]


@pytest.mark.parametrize("path, command", ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_help_page_has_examples_that_parse(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert isinstance(command, help_examples.Command | help_examples.Group)
    shown = examples(path)
    assert shown == list(command.examples)
    for example in shown:
        lines = re.findall(r"distconv (?:[^|'\"]|'[^']*'|\"[^\"]*\")+", example)
        assert lines, example
        for line in lines:
            words = shlex.split(line)
            piped = ["JOB"] if "xargs" in example and line == lines[-1] else []
            parse(cli, [*words, *piped])


@pytest.mark.parametrize("path, command", ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_example_uses_its_command(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, help_examples.Command | help_examples.Group)
    for example in command.examples:
        assert " ".join(("distconv", *path)) in example


@pytest.mark.parametrize("path, command", ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_flag_has_a_help_text(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "max_retries":
            assert parameter.help, f"{path}: {parameter.opts}"


@pytest.mark.parametrize("path, command", ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_takes_the_shared_flags(
    path: tuple[str, ...], command: click.Command
) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--server", "--api-key", "--json"} <= options


def test_help_pages_fit_80_columns_except_for_their_examples() -> None:
    for path, command in ALL:
        assert isinstance(command, help_examples.Command | help_examples.Group)
        page = CliRunner().invoke(cli, [*path, "--help"], prog_name="distconv").output
        for line in page.splitlines():
            assert len(line) <= 80 or line.strip() in command.examples


def test_both_help_flags_print_the_same_page() -> None:
    assert (
        CliRunner().invoke(cli, ["jobs", "-h"]).output
        == CliRunner().invoke(cli, ["jobs", "--help"]).output
    )


def test_the_file_that_the_help_names_is_the_one_that_is_read() -> None:
    from distconv_client.config import config_path

    page = CliRunner().invoke(cli, ["--help"]).output
    assert "~/.config/distconv/config.toml" in page
    assert config_path({"HOME": "/h"}) == Path("/h/.config/distconv/config.toml")
