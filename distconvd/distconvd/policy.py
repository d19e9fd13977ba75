"""What a scheduling policy sees and answers.

A policy is a plugin. It is asked about one job at a time, with an indexed view of the idle engines
that could take it, and answers with an engine and a reason, or a hold and a reason; `why` shows
the reason to people. It decides nothing else: queue order, capability, slots, leases and retries
are the dispatcher's. It must be quick (it runs in the daemon's one thread) and must not wait.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from distconvd.model import Job


class EngineInfo(NamedTuple):
    """One idle engine, as a policy sees it."""

    engine_id: str
    benchmark_s: float | None
    """Seconds for the benchmark, for the job's codec where known; lower is faster."""
    streaming: bool
    tags: frozenset[str]
    slots: int
    held: int
    """Jobs that it holds now; always fewer than `slots`."""


class IdleEngines(Protocol):
    """The idle engines with a free slot that list the job's codec and have its tags.

    `fastest` and `slowest` cost O(log n) and look only at engines with a benchmark; iteration goes
    fastest first and ends with the engines that have none.
    """

    def fastest(self, *, streaming: bool = False) -> EngineInfo | None:
        """Return the fastest engine (with `streaming`: of those that stream), or None."""
        ...

    def slowest(self) -> EngineInfo | None:
        """Return the slowest engine, or None."""
        ...

    def get(self, engine_id: str) -> EngineInfo | None:
        """Return that engine if it is among these."""
        ...

    def __iter__(self) -> Iterator[EngineInfo]: ...


class Place(NamedTuple):
    """Give the job to this engine."""

    engine_id: str
    reason: str


class Hold(NamedTuple):
    """Leave the job in the queue for now."""

    reason: str


class Policy(Protocol):
    """A scheduling policy."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose an engine for `job`, or hold it.

        Args:
            job: the job next in line among those that the same engines can take.
            engines: never empty.
            now_ms: wall-clock time, ms since the epoch.

        Raises: anything; the default policy then decides this one, and the failure is logged and
            counted under the plugin's name. Naming an engine outside `engines` counts as raising.
        """
        ...
