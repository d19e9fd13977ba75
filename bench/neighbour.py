"""Compare the daemon with beanstalkd, a work queue in C that also keeps its jobs on disk.

It runs with `-b DIR -f 0`, so that each write is synced before its reply, as ours are; with the same
64 connections and the same bytes as a job. A put is what a submission is here, and put, reserve and
delete are what submit, assign and complete are. It knows no engines, attempts or leases of several
engines, so to be half as fast is a fair goal.
"""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.load import Result, Script, drive, repeat, request
from bench.scenarios import CONNECTIONS, REQUESTS_A_JOB, SUBMISSION, Audit, cycles, hammer
from bench.subject import Process, daemon, free_port, write_state
from bench.table import Row, Scale
from bench.turns import faults_of, take_turns

PROGRAM = "beanstalkd"
_READY_S = 10.0
_PUT = b"put 1 0 60 %d\r\n%b\r\n" % (len(SUBMISSION), SUBMISSION)
_GOOD = frozenset({b"INSERTED", b"RESERVED", b"DELETED"})


class _Beanstalkd(Process):
    def _wait_until_ready(self, program: str) -> None:
        """Wait until it accepts connections; it prints nothing."""
        ends_s = time.perf_counter() + _READY_S
        while time.perf_counter() < ends_s:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"{program} did not start")


def neighbour_ratios(folder: Path, scale: Scale) -> tuple[list[Row], list[str]]:
    """Return the rows, and the faults of the accounting; no rows where it is not installed."""
    if shutil.which(PROGRAM) is None:
        return [], []
    folder.mkdir()
    submissions, faults = _submissions(folder / "submissions", scale)
    jobs, more_faults = _whole_jobs(folder / "jobs", scale)
    return [submissions, jobs], faults + more_faults


def split_beanstalkd(received: bytes) -> tuple[int, bytes, bytes] | None:
    """Split a reply of its protocol off; a success has the status 200, all others 500."""
    line, end, rest = received.partition(b"\r\n")
    if not end:
        return None
    words = line.split()
    status = 200 if words and words[0] in _GOOD else 500
    if words[:1] != [b"RESERVED"]:
        return status, line, rest
    size = int(words[2])
    if len(rest) < size + 2:
        return None
    return status, line, rest[size + 2 :]


def _submissions(folder: Path, scale: Scale) -> tuple[Row, list[str]]:
    folder.mkdir()
    audit, bad = Audit(folder), list[Result]()
    with daemon(folder) as subject, _beanstalkd(folder / "binlog") as neighbour:

        def submit() -> Result:
            result = hammer(subject, request("POST", "/jobs/", SUBMISSION), scale.seconds)
            audit.jobs += result.requests - len(result.bad)
            bad.append(result)
            return result

        def put() -> Result:
            return _drive(neighbour, [repeat(_PUT, scale.seconds) for _ in range(CONNECTIONS)], bad)

        rates = take_turns(submit, put, scale.rounds)
    audit.close()
    row = rates.row("durable submit / beanstalkd put", 0.75)
    return row, audit.faults + faults_of("submit and put", bad)


def _whole_jobs(folder: Path, scale: Scale) -> tuple[Row, list[str]]:
    folder.mkdir()
    write_state(folder, finished=scale.stored)
    audit, bad = Audit(folder), list[Result]()
    audit.jobs = audit.completed = scale.stored
    count = scale.cycles // scale.rounds
    with daemon(folder) as subject, _beanstalkd(folder / "binlog") as neighbour:

        def theirs() -> Result:
            remaining = [count]
            return _drive(neighbour, [_cycle(remaining) for _ in range(CONNECTIONS)], bad)

        ours = partial(cycles, subject, scale.engines, count, audit)
        rates = take_turns(ours, theirs, scale.rounds)
    audit.close()
    row = rates.row(
        "whole jobs / beanstalkd put, reserve, delete", 0.5, requests_each=REQUESTS_A_JOB
    )
    return row, audit.faults + faults_of("put, reserve, delete", bad)


def _cycle(remaining: list[int]) -> Script:
    """Put a job, reserve one and delete it."""
    while remaining[0] > 0:
        remaining[0] -= 1
        yield _PUT
        _, line = yield b"reserve\r\n"
        yield b"delete %b\r\n" % line.split()[1]


def _drive(neighbour: Process, scripts: list[Script], results: list[Result]) -> Result:
    result = drive(neighbour.port, scripts, split=split_beanstalkd)
    results.append(result)
    return result


@contextmanager
def _beanstalkd(folder: Path) -> Iterator[Process]:
    folder.mkdir()
    port = free_port()
    arguments = [PROGRAM, "-l", "127.0.0.1", "-p", str(port), "-b", str(folder), "-f", "0"]
    process = _Beanstalkd(arguments, port)
    try:
        yield process
    finally:
        process.stop()
