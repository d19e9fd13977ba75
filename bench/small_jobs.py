"""Measure what the engine adds to small jobs, against a shell loop of the same commands.

Here an encode takes a second or two, so whatever the engine does once a job shows: starts of
processes, checks, syncs, messages, and the time from one job to the next. One engine with one slot
and the shell take turns, a batch of clips each; the engine's time runs from the submission of a
batch to the last acknowledged report, so that it includes the assignments. The engine logs how long
each phase of a job took; what is left of its time lies between jobs.
"""

import shlex
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil

from bench.engine_site import (
    CODEC,
    WAIT_S,
    ask,
    command_of,
    cpu_of_children,
    cpu_so_far,
    engine_site,
    make_clip,
)
from bench.table import Row, Scale
from distconv_engine.ffmpeg.tools import find_tools

CLIP_S = 5.0
WIDTH, HEIGHT = 640, 360
BATCH = 4
"""How many clips one side encodes before the other's turn."""
WALL_S_MAX = 0.10
CPU_MAX = 1.15
_POLL_S = 0.1


class _Clip(NamedTuple):
    path: Path
    command: list[str]
    """The engine's command for it, with an output of its own."""


class _Cost(NamedTuple):
    """The cost of a clip on one side, in seconds."""

    wall_s: float
    cpu_s: float


@dataclass
class _Measured:
    """The costs of each turn."""

    engine: list[_Cost] = field(default_factory=list[_Cost])
    hand: list[_Cost] = field(default_factory=list[_Cost])

    def rows(self, count: int, phases: str) -> list[Row]:
        """Return the median difference in wall time, and the median ratio of CPU time."""
        pairs = list(zip(self.engine, self.hand, strict=True))
        more_s = [e.wall_s - h.wall_s for e, h in pairs]
        cpu = [e.cpu_s / h.cpu_s for e, h in pairs]
        engine_s = statistics.median(e.wall_s for e in self.engine)
        hand_s = statistics.median(h.wall_s for h in self.hand)
        wall_note = f"{engine_s:.2f} s against {hand_s:.2f} s; {_spread(more_s)}; {phases}"
        name = f"small jobs ({count} of {CLIP_S:g} s {HEIGHT}p): engine"
        return [
            Row(f"{name} - ffmpeg", statistics.median(more_s), "s", WALL_S_MAX, "less", note=wall_note),
            Row(f"{name} / ffmpeg, CPU", statistics.median(cpu), "x", CPU_MAX, "less", note=_spread(cpu)),
        ]  # fmt: skip


def small_jobs(folder: Path, scale: Scale) -> list[Row]:
    """Encode the clips by engine and by hand in turns."""
    folder.mkdir()
    clips = [_make(folder, number) for number in range(scale.small_clips)]
    batches = [clips[start : start + BATCH] for start in range(0, len(clips), BATCH)]
    measured = _Measured()
    with engine_site(folder, "--slots", "1", "--log-format", "json") as (engine, client):
        for number, batch in enumerate(batches):
            if number % 2:
                measured.engine.append(_by_engine(engine, client, batch))
            measured.hand.append(_by_hand(batch))
            if not number % 2:
                measured.engine.append(_by_engine(engine, client, batch))
    total_s = sum(cost.wall_s * len(b) for cost, b in zip(measured.engine, batches, strict=True))
    return measured.rows(len(clips), phases_of(folder / "engine.log", len(clips), total_s))


def phases_of(log: Path, jobs: int, total_s: float) -> str:
    """Return the mean time of each phase, from the engine's log, and that between jobs."""
    spent_s = defaultdict[str, float](float)
    for line in log.read_bytes().splitlines():
        event = msgspec.json.decode(line, type=dict[str, Any])
        if event["event"] == "job completed":
            for phase, seconds in event["seconds"].items():
                spent_s[phase] += seconds
    spent_s["between jobs"] = total_s - sum(spent_s.values())
    return (
        ", ".join(f"{phase} {1000 * spent / jobs:.0f}" for phase, spent in spent_s.items()) + " ms"
    )


def _make(folder: Path, number: int) -> _Clip:
    tools = find_tools(None)
    path = folder / f"clip-{number}.mp4"
    make_clip(tools, path, WIDTH, HEIGHT, CLIP_S, start_s=number / 10)
    return _Clip(path, command_of(tools, path, path.with_suffix(".by-hand.mp4")))


def _by_hand(batch: Sequence[_Clip]) -> _Cost:
    loop = "set -e\n" + "\n".join(f"{shlex.join(clip.command)} >/dev/null 2>&1" for clip in batch)
    cpu_s, began_s = cpu_of_children(), time.perf_counter()
    subprocess.run(["/bin/sh", "-c", loop], check=True)
    wall_s, cpu_s = time.perf_counter() - began_s, cpu_of_children() - cpu_s
    return _Cost(wall_s / len(batch), cpu_s / len(batch))


def _by_engine(engine: psutil.Process, client: httpx.Client, batch: Sequence[_Clip]) -> _Cost:
    cpu_s = cpu_so_far(engine)
    jobs = [_submit(client, clip) for clip in batch]
    began_ms = jobs[0]["created_at"]
    ended = [_wait_for_end(client, job["job_id"]) for job in jobs]
    wall_s = (max(job["finished_at"] for job in ended) - began_ms) / 1000
    return _Cost(wall_s / len(batch), (cpu_so_far(engine) - cpu_s) / len(batch))


def _submit(client: httpx.Client, clip: _Clip) -> Any:
    body = {"source_url": clip.path.as_uri(), "target_codec": CODEC, "job_size": 1.0}
    return ask(client, "POST", "/jobs/", body)


def _wait_for_end(client: httpx.Client, job_id: str) -> Any:
    ends_s = time.perf_counter() + WAIT_S
    while time.perf_counter() < ends_s:
        job = ask(client, "GET", f"/jobs/{job_id}")
        if job["status"] == "completed":
            return job
        if job["status"] not in ("pending", "assigned"):
            raise RuntimeError(f"the engine's job is {job['status']}: {job['error_message']}")
        time.sleep(_POLL_S)  # the daemon's own times count, so this costs no precision
    raise RuntimeError(f"a small job was not encoded within {WAIT_S:.0f} s")


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} in {len(values)} turns"
