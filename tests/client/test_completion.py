"""Test shell completion by click's protocol for each shell, and in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from distconv_client.main import cli

SHELLS = ("bash", "zsh", "fish")
ENTRY = "import sys; sys.argv[0] = 'distconv'; from distconv_client.main import main; main()"


def completions(shell: str, *words: str) -> list[str]:
    """Return the completions of the last word."""
    line = ("distconv", *words)
    environ = {
        "_DISTCONV_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    lines = CliRunner().invoke(cli, [], prog_name="distconv", env=environ).output.splitlines()
    if shell == "zsh":
        return [word for kind, word in zip(lines[::3], lines[1::3], strict=True) if kind == "plain"]
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_that_calls_distconv(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell], prog_name="distconv").output
    assert f"_DISTCONV_COMPLETE={shell}_complete" in script
    assert "distconv" in script


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_flags_and_values_are_completed(shell: str) -> None:
    assert completions(shell, "do") == ["doctor"]
    assert "failed_permanently" in completions(shell, "jobs", "--status", "failed")
    assert "--clip-dir" in completions(shell, "doctor", "--cl")


def test_an_unknown_shell_is_refused_with_the_known_ones() -> None:
    result = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_after_the_command_in_the_help(tmp_path: Path) -> None:
    program = tmp_path / "distconv"
    program.write_text(f"#!{sys.executable}\n{ENTRY}\n")
    program.chmod(0o755)
    script = """
        eval "$(distconv completion bash)"
        COMP_WORDS=(distconv engines dr) COMP_CWORD=2
        _distconv_completion distconv dr engines
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "drain\n", done.stderr
