"""What a scheduling policy sees and answers.

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

    def asking(self) -> EngineInfo | None:
        """Return an engine that is asking for work at this moment, or None when nobody is.

        A job that is placed on it begins at once; on any other it waits until that one asks.
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
    """When to ask again at the latest (ms since the epoch). Else it is asked when an engine asks
    for work, and when a job or an engine becomes free."""


class Share(NamedTuple):
    """What a job counts for, where a policy divides the queue."""

    name: str
    """Jobs of one name wait in one line, by priority and age."""
    cost: float
    """How far its share's clock runs on when it is assigned; over 0. The share whose clock is the
    furthest behind comes next, so half the cost is twice the jobs."""


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


@runtime_checkable
class SharingPolicy(Policy, Protocol):
    """A policy that also says whose turn it is: among jobs of one priority, shares take turns."""

    def share(self, job: Job) -> Share:
        """Return what a job counts for; the same for the same job while it waits.

        Raises: anything; the job then counts for the share "" with cost 1, and the failure is
            logged and counted. So does an answer that is none.
        """
        ...
