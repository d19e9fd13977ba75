"""Compare the daemon of this checkout with another revision, in turns within one run.

Each side is a whole process, driven by HTTP only, so the revisions may differ in all their modules.
The packages of the other revision, with their own entry points, are installed into a directory that
comes before this checkout on its process's path; what both depend on is the same.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.load import Result, request
from bench.scenarios import REQUESTS_A_JOB, SUBMISSION, Audit, beat, cycles, hammer
from bench.subject import Process, daemon, write_state
from bench.table import Row, Scale
from bench.turns import take_turns

Load = Callable[[Process, Audit], Result]
JOBS = "whole jobs"


def compared_with(revision: str, folder: Path, scale: Scale) -> tuple[list[Row], list[str]]:
    """Return a row for whole jobs, submissions and heartbeats, and the faults of the accounting.

    A row's goal is 1 less the spread of its own turns.
    """
    folder.mkdir()
    site = install(revision, folder)
    count = max(1, scale.cycles // 4)
    requests: dict[str, Load] = {
        "heartbeats": partial(_heartbeats, scale.seconds),
        "durable submissions": partial(_submissions, scale.seconds),
    }
    jobs: dict[str, Load] = {JOBS: partial(_jobs, scale.engines, count)}
    rows, faults = _compare(folder / "requests", revision, site, requests, scale.turns)
    more, more_faults = _compare(folder / "jobs", revision, site, jobs, scale.turns, scale.stored)
    return more + rows, faults + more_faults


def install(revision: str, folder: Path) -> Path:
    """Install the packages of a revision into a directory of `folder`, and return that."""
    packed = subprocess.run(["git", "archive", revision], capture_output=True, check=True).stdout
    source, site = folder / "source", folder / "site"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(source, filter="data")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    argv += ["--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(argv, check=True)
    return site


def _compare(
    folder: Path, revision: str, site: Path, loads: dict[str, Load], turns: int, stored: int = 0
) -> tuple[list[Row], list[str]]:
    """Run each load on both daemons in turns."""
    sides = {"subject": None, "base": site}
    audits = {name: Audit(folder / name, site=where) for name, where in sides.items()}
    for name, audit in audits.items():
        (folder / name).mkdir(parents=True)
        audit.jobs = audit.completed = stored
        write_state(folder / name, finished=stored)
    rows: list[Row] = []
    with daemon(folder / "subject") as subject, daemon(folder / "base", site=site) as base:
        for name, load in loads.items():
            rates = take_turns(
                partial(load, subject, audits["subject"]),
                partial(load, base, audits["base"]),
                turns,
            )
            each = REQUESTS_A_JOB if name == JOBS else 1
            goal = round(1 - rates.spread, 3)
            rows.append(rates.row(f"{name} / those of {revision}", goal, requests_each=each))
    for audit in audits.values():
        audit.close()
    return rows, [f"{name}: {fault}" for name, audit in audits.items() for fault in audit.faults]


def _heartbeats(seconds: float, process: Process, audit: Audit) -> Result:
    data = request("POST", "/engines/heartbeat", beat("bench", 100.0))
    result = hammer(process, data, seconds)
    audit.note("heartbeats", result)
    return result


def _submissions(seconds: float, process: Process, audit: Audit) -> Result:
    result = hammer(process, request("POST", "/jobs/", SUBMISSION), seconds)
    audit.note("submissions", result)
    audit.jobs += result.requests - len(result.bad)
    return result


def _jobs(engines: int, count: int, process: Process, audit: Audit) -> Result:
    return cycles(process, engines, count, audit)
