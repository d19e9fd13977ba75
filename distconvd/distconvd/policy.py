"""Declare what a scheduling policy sees and answers.

A policy is a plugin. It is asked about one job at a time, with an indexed view of the idle engines
that could take it, and answers with an engine and a reason, or a hold and a reason; `why` shows
the reason to people. It may also divide the queue into shares (`SharingPolicy`), which then take
turns. It decides nothing else: priority and age, capability, slots, leases and retries are the
dispatcher's. It must be quick (it runs in the daemon's one thread) and must not wait.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

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
    """How many jobs are assigned to it now; always fewer than `slots`."""


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
        """Return this engine if it is among them, else None."""
        ...

    def asking(self) -> EngineInfo | None:
        """Return an engine that is asking for work at this moment, or None.

        A job that is placed on it starts immediately; on any other it waits until that one asks.
        """
        ...

    def __iter__(self) -> Iterator[EngineInfo]: ...


class Place(NamedTuple):
    """Give the job to this engine."""

    engine_id: str
    reason: str


class Hold(NamedTuple):
    """Leave the job in the queue for now."""

    reason: str
    until_ms: int | None = None
    """When to ask again at the latest (ms since the epoch). In any case the policy is asked again
    when an engine asks for work, and when a job or an engine becomes available."""


class Share(NamedTuple):
    """The share that a job counts for, where a policy divides the queue."""

    name: str
    """Jobs of one name wait in one queue, by priority and age."""
    cost: float
    """How far the job advances its share's clock when it is assigned; above 0. The share whose
    clock is furthest behind comes next, so half the cost gives twice the jobs."""


class Policy(Protocol):
    """A scheduling policy."""

    def place(self, job: Job, engines: IdleEngines, now_ms: int) -> Place | Hold:
        """Choose an engine for `job`, or hold it.

        Args:
            job: the first job among those that the same engines can take.
            engines: never empty.
            now_ms: wall-clock time, ms since the epoch.

        Raises: anything; the default policy then decides this one, and the failure is logged and
            counted under the plugin's name. Naming an engine outside `engines` counts as raising.
        """
        ...


@runtime_checkable
class SharingPolicy(Policy, Protocol):
    """A policy that also divides the queue: among jobs of one priority, shares take turns."""

    def share(self, job: Job) -> Share:
        """Return the share of a job; always the same for one job while it waits.

        Raises: anything; the job then counts for the share "" with cost 1, and the failure is
            logged and counted. The same happens with an invalid answer.
        """
        ...
