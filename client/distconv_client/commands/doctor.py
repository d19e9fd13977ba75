"""Check every step from this machine to a finished job: the command doctor."""

import os
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from distconv_client.config import load_settings
from distconv_client.display import text
from distconv_client.display.terminal import print_json, stdout_console
from distconv_client.doctor import DoctorConfig, Finding, run_checks
from distconv_client.errors import BadInput
from distconv_client.help_examples import Command
from distconv_client.shared import Flags, pass_flags, shared_flags

_STYLES = {"ok": "green", "fail": "bold red", "skip": "dim"}


@click.command(
    cls=Command,
    examples=(
        "distconv doctor",
        "distconv doctor --server https://dispatch.example.org --timeout 120",
        "distconv doctor --clip-dir /srv/media",
        "distconv doctor --work-dir /var/lib/distconv-engine/1",
        "distconv doctor --json | jq -r 'select(.outcome == \"fail\") | .remedy'",
    ),
)
@click.option(
    "--clip-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Exchange the test clip through this folder, which engines see under the same path; "
    "default: engines fetch it from this machine.",
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Check the free space in this work directory of an engine; default: DISTCONV_WORK_DIR, "
    "else that of distconv-engine@.service, else that of DISTCONV_CONFIG.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the round trip may take.",
)
@shared_flags
@pass_flags
def doctor(flags: Flags, clip_dir: Path | None, work_dir: Path | None, timeout_s: float) -> None:
    """Check every step to a finished job, and say what to fix.

    In order: the daemon's host name, its port, TLS, HTTP, its clock, the key and its roles, the
    version, readiness and engines; if an engine is installed here, its ffmpeg and encoders (with
    the settings of /etc/distconv/engine.toml, if it exists); free disk space; and a round trip: a
    real engine fetches a clip of one second from this machine, encodes it and uploads the result,
    and its checksum and frames are compared. The job is urgent, and stays on record with the label
    distconv=doctor.

    With --json: one check a line, with `check`, `outcome` (ok, fail, skip), `told` (the finding)
    and `remedy`. Exits 1 if a check failed.
    """
    if clip_dir is not None and not clip_dir.is_dir():
        raise BadInput(
            f"--clip-dir: {clip_dir} is not a directory.",
            hint="Name one that the engines see under the same path.",
        )
    # Unlike Path.is_dir, this does not raise without the permission to look.
    if work_dir is not None and not os.path.isdir(work_dir):
        raise BadInput(
            f"--work-dir: {work_dir} is not a directory, or not visible to you.",
            hint="Name the work directory of an engine on this machine.",
        )
    settings = load_settings(flags.server, flags.api_key)
    doctor_config = DoctorConfig(settings, clip_dir, timeout_s, work_dir)
    console = stdout_console()
    failures = 0
    for finding in run_checks(doctor_config):
        failures += finding.outcome == "fail"
        if flags.as_json:
            print_json(finding)
        else:
            print_finding(finding, console)
    if failures:
        click.get_current_context().exit(1)


def print_finding(finding: Finding, console: Console) -> None:
    """Print one finding, and its remedy below it."""
    line = Text(f"{finding.outcome:<5}", style=_STYLES[finding.outcome])
    line.append(f" {finding.check:<11}{text.clean(finding.detail)}", style="default")
    console.print(line, soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"{'':17}{text.clean(finding.remedy)}", style="yellow"), soft_wrap=True)
