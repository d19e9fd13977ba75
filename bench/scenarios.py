"""Run the scenarios of docs/design.md, "Speed"; each returns rows for the table.

The values are ratios within one run, since absolute numbers mean little on a shared machine.
Baseline and subject take turns, several times, and the median counts.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Result, Script, drive, repeat, request
from bench.subject import Process, bare, daemon, write_state
from bench.table import Row, Scale

CONNECTIONS = 64
REQUESTS_A_JOB = 3
"""Of `cycles`: submit, assign, complete."""

SUBMISSION = (
    b'{"source_url":"http://example.com/video.mp4","target_codec":"h264","job_size":100.5,'
    b'"max_retries":3}'
)


class Audit:
    """Counts what was acknowledged, and compares it with the daemon's own counts."""

    def __init__(self, folder: Path, *, site: Path | None = None) -> None:
        self._folder = folder
        self._site = site
        self.jobs = 0
        self.completed = 0
        self.faults: list[str] = []

    def note(self, what: str, result: Result) -> None:
        """Record replies other than a success."""
        if result.bad:
            self.faults.append(f"{what}: {len(result.bad)} bad replies; the first: {result.bad[0]}")

    def close(self) -> None:
        """Restart the daemon from its disk, and compare the counts."""
        with daemon(self._folder, site=self._site) as again:
            status = _get(again, "/status")
        total = sum(status["jobs"].values())
        if total != self.jobs:
            self.faults.append(f"{self.jobs} jobs acknowledged, {total} on disk")
        if status["jobs"]["completed"] != self.completed:
            jobs_completed = status["jobs"]["completed"]
            self.faults.append(
                f"{self.completed} completions acknowledged, {jobs_completed} on disk"
            )


def disk_rate(folder: Path, seconds: float) -> float:
    """Return the rate of 4 KiB appends with fdatasync on the raw disk, per second."""
    count, block = 0, b"x" * 4096
    handle = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ends_s = time.perf_counter() + seconds
    while time.perf_counter() < ends_s:
        os.write(handle, block)
        os.fdatasync(handle)
        count += 1
    os.close(handle)
    os.unlink(folder / "raw")
    return count / seconds


def request_ratios(folder: Path, scale: Scale, audit: Audit) -> list[Row]:
    """Compare reads, heartbeats and durable submissions with bare trio and h11."""
    get_bare, post_bare = request("GET", "/"), request("POST", "/", SUBMISSION)
    rates: dict[str, list[float]] = {}
    last: dict[str, Result] = {}
    with bare() as baseline, daemon(folder) as subject:
        job_id = _submit(subject)
        audit.jobs += 1
        loads = [
            ("bare GET", baseline, get_bare),
            ("read", subject, request("GET", f"/jobs/{job_id}")),
            ("bare POST", baseline, post_bare),
            ("heartbeat", subject, request("POST", "/engines/heartbeat", beat("bench", 100.0))),
            ("submit", subject, request("POST", "/jobs/", SUBMISSION)),
        ]
        for _ in range(scale.rounds):
            for name, process, data in loads:
                result = hammer(process, data, scale.seconds)
                audit.note(name, result)
                rates.setdefault(name, []).append(result.rate)
                last[name] = result
                if name == "submit":
                    audit.jobs += result.requests - len(result.bad)
    return [
        _ratio_row("read / bare", "read", "bare GET", 0.6, rates, last),
        _ratio_row("heartbeat / bare", "heartbeat", "bare POST", 0.6, rates, last),
        _ratio_row("durable submit / bare", "submit", "bare POST", 0.5, rates, last),
    ]


def whole_jobs(folder: Path, scale: Scale, audit: Audit) -> list[Row]:
    """Submit, assign and complete with many engines and stored jobs, ended or stuck."""
    few, many, stuck = folder / "few", folder / "many", folder / "stuck"
    rates: dict[str, float] = {}
    rows: list[Row] = []
    for place, ended, waiting in (
        (few, scale.stored // 100, 0),
        (many, scale.stored, 0),
        (stuck, 0, scale.stored),
    ):
        place.mkdir()
        write_state(place, finished=ended, stuck=waiting)
        stored = Audit(place)
        stored.jobs, stored.completed = ended + waiting, ended
        with daemon(place) as subject:
            empty_bytes = 0 if place != many else subject.rss_bytes
            result = cycles(subject, scale.engines, scale.cycles, stored)
            rates[place.name] = scale.cycles / result.seconds
            if place == many:
                rows.append(_memory_row(folder, empty_bytes, scale.stored))
                rows.append(
                    Row(
                        f"whole jobs/s, {scale.engines} engines, {scale.stored} stored",
                        rates["many"],
                        "jobs/s",
                        1000,
                        "more",
                        result.percentile_ms(0.5),
                        result.percentile_ms(0.99),
                        "three durable requests a job",
                    )
                )
        stored.close()
        audit.faults += [f"{place.name}: {fault}" for fault in stored.faults]
    growth = rates["few"] / rates["many"]
    crowd = rates["many"] / rates["stuck"]
    rows.append(Row(f"cost at {scale.stored} stored / at 1 %", growth, "x", 1.2, "less"))
    rows.append(Row("cost with as many stuck / with as many ended", crowd, "x", 1.2, "less"))
    return rows


def start_time(folder: Path, scale: Scale) -> list[Row]:
    """Measure how long the daemon takes to start with many stored jobs."""
    folder.mkdir()
    write_state(folder, finished=scale.start_jobs)
    with daemon(folder) as subject:
        seconds, rss = subject.start_s, subject.rss_bytes
    name = f"start with {scale.start_jobs} stored jobs"
    per_job = rss / scale.start_jobs
    return [Row(name, seconds, "s", 20.0, "less", note=f"{per_job:.0f} B a job in all")]


def _memory_row(folder: Path, full_bytes: int, stored: int) -> Row:
    empty = folder / "empty"
    empty.mkdir()
    with daemon(empty) as subject:
        each = (full_bytes - subject.rss_bytes) / stored
    return Row("memory a stored job", each, "B", 1500, "less")


def cycles(subject: Process, engines: int, count: int, audit: Audit) -> Result:
    """Run whole jobs on all engines; each connection is both submitter and engine."""
    beats = [
        request("POST", "/engines/heartbeat", beat(f"e{n}", 100.0 + n)) for n in range(engines)
    ]
    audit.note("heartbeats", drive(subject.port, [_once(beats)]))
    remaining = [count]
    scripts = [_cycle(remaining, audit) for _ in range(CONNECTIONS)]
    result = drive(subject.port, scripts)
    audit.note("cycles", result)
    return result


def _cycle(remaining: list[int], audit: Audit) -> Script:
    """Submit a job, have it assigned to the engine of the policy's choice, and complete it."""
    while remaining[0] > 0:
        remaining[0] -= 1
        status, _ = yield request("POST", "/jobs/", SUBMISSION)
        audit.jobs += status == 200
        status, record = yield request("POST", "/assign_job/", b"{}")
        if status != 200:
            audit.faults.append(f"nothing was assigned: {status} {record[:200]!r}")
            continue
        job = msgspec.json.decode(record, type=dict[str, Any])
        body = b'{"output_url":"http://example.com/o.mp4","attempt":%d}' % job["attempt"]
        status, _ = yield request("POST", f"/jobs/{job['job_id']}/complete", body)
        audit.completed += status == 200


def _once(requests: list[bytes]) -> Script:
    for data in requests:  # noqa: UP028 - replies are sent in, which a list's iterator cannot take
        yield data


def hammer(process: Process, data: bytes, seconds: float) -> Result:
    """Repeat one request on all connections for some seconds."""
    return drive(process.port, [repeat(data, seconds) for _ in range(CONNECTIONS)])


def _ratio_row(
    name: str, subject: str, base: str, goal: float, rates: dict[str, list[float]],
    last: dict[str, Result],
) -> Row:  # fmt: skip
    ratio = statistics.median(s / b for s, b in zip(rates[subject], rates[base], strict=True))
    result = last[subject]
    note = (
        f"{statistics.median(rates[subject]):.0f}/s against {statistics.median(rates[base]):.0f}/s"
    )
    p50, p99 = result.percentile_ms(0.5), result.percentile_ms(0.99)
    return Row(name, ratio, "x", goal, "more", p50, p99, note)


def beat(engine_id: str, seconds: float) -> bytes:
    """Return a heartbeat of an engine with a benchmark of some seconds."""
    return msgspec.json.encode(
        {
            "engine_id": engine_id,
            "engine_type": "transcoder",
            "supported_codecs": ["h264", "vp9"],
            "status": "idle",
            "storage_capacity_gb": 500.0,
            "streaming_support": True,
            "benchmark_time": seconds,
        }
    )


def _submit(process: Process) -> str:
    replies: list[bytes] = []

    def script() -> Script:
        _, body = yield request("POST", "/jobs/", SUBMISSION)
        replies.append(body)

    drive(process.port, [script()])
    return str(msgspec.json.decode(replies[0], type=dict[str, Any])["job_id"])


def _get(process: Process, path: str) -> dict[str, Any]:
    replies: list[bytes] = []

    def script() -> Script:
        _, body = yield request("GET", path)
        replies.append(body)

    drive(process.port, [script()])
    return msgspec.json.decode(replies[0], type=dict[str, Any])
