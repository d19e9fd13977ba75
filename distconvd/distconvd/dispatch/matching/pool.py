"""Keep all engines, and indexes of the available ones in order of speed.

For each requirement that was asked about lately there is an index of the available engines that can
take it, sorted by speed; an engine that becomes available or unavailable is added to, or removed
from, the few indexes that it fits. So the fastest or slowest engine for a job is found in one step,
and moving an engine costs O(log n) for each index. Rejected: groups of equal engines, since tags
such as host names make every engine a group of its own.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from distconvd.dispatch.lifecycle import engine_state
from distconvd.dispatch.matching.requirements import Ability, Requirements, ability_of
from distconvd.model import EngineRecord, EngineState, canonical_codec
from distconvd.policy import EngineInfo

INDEXES_MAX = 256
"""Requirements indexed at a time; the least recently used is dropped, and rebuilt on demand."""


class EngineEntry:
    """One engine: its stored record, and the runtime state that is never stored."""

    __slots__ = (
        "ability",
        "assigned",
        "benchmarks",
        "cpu_percent",
        "extra",
        "free_gb",
        "last_seen_ms",
        "last_seen_s",
        "long_polls",
        "named",
        "offline",
        "record",
        "reservation_expired",
        "reserved",
        "tags",
        "temperature_c",
    )

    def __init__(self, record: EngineRecord, last_seen_s: float, last_seen_ms: int) -> None:
        self.last_seen_s = last_seen_s
        self.last_seen_ms = last_seen_ms
        self.offline = False
        self.reservation_expired = False
        """One of its reservations expired: nothing is reserved for it until it asks again."""
        self.long_polls = 0
        """How many of its requests wait for a job: its long polls, or 1 for a websocket."""
        self.named: frozenset[str] = frozenset()
        """Ids of the jobs that its last heartbeat named."""
        self.assigned: dict[str, None] = {}
        """Ids of the jobs assigned to it, oldest first; shared with the state's index."""
        self.reserved: dict[str, float] = {}
        """Ids of the jobs reserved for it, with when that expires (monotonic seconds)."""
        self.extra: dict[str, Any] = {}
        """Reported fields that this version does not know, within `Limits.extra_bytes`."""
        self.free_gb: float | None = None
        self.cpu_percent: float | None = None
        self.temperature_c: float | None = None
        self.set_record(record)

    def set_record(self, record: EngineRecord) -> None:
        """Replace its record."""
        self.record = record
        self.ability = ability_of(record)
        self.tags = frozenset(record.tags)
        self.benchmarks = {canonical_codec(c): s for c, s in record.benchmarks.items()}

    @property
    def state(self) -> EngineState:
        """The state that people and policies see."""
        record = self.record
        return engine_state(
            {
                "silent": self.offline,
                "quarantined": record.quarantined_until is not None,
                "draining": record.draining,
                "full": len(self.assigned) >= record.slots,
                "says it is not idle": record.status != "idle",
            }
        )

    @property
    def available(self) -> bool:
        """Whether a job may be assigned to it or reserved for it now."""
        free = self.record.slots - len(self.assigned) - len(self.reserved)
        return free > 0 and not self.reservation_expired and self.state is EngineState.IDLE

    @property
    def may_take_jobs(self) -> bool:
        """Whether it may take jobs, now or when it has a free slot."""
        return self.state in (EngineState.IDLE, EngineState.BUSY)

    def benchmark_s(self, codec: str) -> float | None:
        """Return its benchmark for a canonical codec: the codec's own, else the single number."""
        return self.benchmarks.get(codec, self.record.benchmark_time)

    def info(self, codec: str) -> EngineInfo:
        """Return what a policy may see of it."""
        return EngineInfo(
            self.record.engine_id,
            self.benchmark_s(codec),
            self.record.streaming_support,
            self.tags,
            self.record.slots,
            len(self.assigned),
        )


class RequirementIndex:
    """The available engines that can take one requirement; policies see `AvailableEngines`."""

    def __init__(self, requirements: Requirements) -> None:
        self.requirements = requirements
        self.members: dict[str, EngineEntry] = {}
        self.ranked: list[tuple[float, str]] = []
        self.ranked_streaming: list[tuple[float, str]] = []
        self.long_polls: dict[str, None] = {}

    def add(self, entry: EngineEntry) -> None:
        """Add an engine that became available."""
        engine_id = entry.record.engine_id
        self.members[engine_id] = entry
        if entry.long_polls:
            self.long_polls[engine_id] = None
        for ranked, pair in self._ranks(entry):
            insort(ranked, pair)

    def remove(self, entry: EngineEntry) -> None:
        """Remove an engine; it must not have changed since it was added."""
        engine_id = entry.record.engine_id
        del self.members[engine_id]
        self.long_polls.pop(engine_id, None)
        for ranked, pair in self._ranks(entry):
            del ranked[bisect_left(ranked, pair)]

    def _ranks(
        self, entry: EngineEntry
    ) -> Iterator[tuple[list[tuple[float, str]], tuple[float, str]]]:
        seconds = entry.benchmark_s(self.requirements.codec)
        if seconds is not None:
            yield self.ranked, (seconds, entry.record.engine_id)
            if entry.record.streaming_support:
                yield self.ranked_streaming, (seconds, entry.record.engine_id)


class Change:
    """The change of an engine; see `EnginePool.changing`.

    A class instead of a generator, as several of them are part of each assignment.
    """

    __slots__ = ("_begin", "_end", "_engine_id")

    def __init__(
        self,
        engine_id: str,
        begin: Callable[[str], EngineEntry | None],
        end: Callable[[str], None],
    ) -> None:
        self._engine_id = engine_id
        self._begin = begin
        self._end = end

    def __enter__(self) -> EngineEntry | None:
        return self._begin(self._engine_id)

    def __exit__(self, *exception: object) -> None:
        # Also when the block raised: what it had changed until then is undone by other changes.
        self._end(self._engine_id)


class EnginePool:
    """All engines, and indexes of the available ones."""

    def __init__(self) -> None:
        self.engines: dict[str, EngineEntry] = {}
        self.dirty: dict[str, None] = {}
        """Long-polling engines that became available since this was last cleared, in that order: a
        decision must not depend on the order of a set, or no run could be replayed."""
        self.long_polls = 0
        """How many of the available engines wait in a long poll."""
        self.abilities: Counter[Ability] = Counter()
        """The abilities of the available engines, each with the number of engines that have it."""
        self._available: dict[str, EngineEntry] = {}
        self._indexes: dict[Requirements, RequirementIndex] = {}
        self._changing: dict[str, int] = {}
        """How many changes of an engine are under way; meanwhile it is in no index."""

    def changing(self, engine_id: str) -> Change:
        """Change an engine in a `with` block: it is added, edited or removed only there.

        The block gets the engine's entry, or None if it is not registered. Meanwhile the engine is in
        no index; after the outermost block it is in those that it belongs to then.
        """
        return Change(engine_id, self._begin_change, self._end_change)

    def _begin_change(self, engine_id: str) -> EngineEntry | None:
        depth = self._changing.get(engine_id, 0)
        self._changing[engine_id] = depth + 1
        if not depth:
            self._unindex(engine_id)
        return self.engines.get(engine_id)

    def _end_change(self, engine_id: str) -> None:
        self._changing[engine_id] -= 1
        if not self._changing[engine_id]:
            del self._changing[engine_id]
            self._index(engine_id)

    def _unindex(self, engine_id: str) -> None:
        """Remove an engine from the available ones."""
        entry = self._available.pop(engine_id, None)
        if entry is None:
            return
        self.long_polls -= entry.long_polls > 0
        self.abilities[entry.ability] -= 1
        if not self.abilities[entry.ability]:
            del self.abilities[entry.ability]
        for index in self._indexes.values():
            if entry.ability.can_take(index.requirements):
                index.remove(entry)

    def _index(self, engine_id: str) -> None:
        """Add an engine to the available ones, if it is available."""
        entry = self.engines.get(engine_id)
        if entry is None or not entry.available:
            return
        self._available[engine_id] = entry
        self.abilities[entry.ability] += 1
        if entry.long_polls:
            self.long_polls += 1
            self.dirty[engine_id] = None
        for index in self._indexes.values():
            if entry.ability.can_take(index.requirements):
                index.add(entry)

    def is_available(self, engine_id: str) -> bool:
        """Whether the engine is among the available ones."""
        return engine_id in self._available

    def index(self, requirements: Requirements) -> RequirementIndex:
        """Return the index of a requirement: built on first use, O(n log n), then kept."""
        index = self._indexes.pop(requirements, None)
        if index is None:
            index = RequirementIndex(requirements)
            for entry in self._available.values():
                if entry.ability.can_take(requirements):
                    index.add(entry)
            if len(self._indexes) >= INDEXES_MAX:
                del self._indexes[next(iter(self._indexes))]
        self._indexes[requirements] = index
        return index

    def engines_for(self, requirements: Requirements) -> Iterator[EngineEntry]:
        """Yield the engines, busy ones too, that can take such a job now or later: O(n)."""
        for entry in self.engines.values():
            if entry.may_take_jobs and entry.ability.can_take(requirements):
                yield entry


class AvailableEngines:
    """What a policy sees for one job (`distconvd.policy.IdleEngines`): an index without the engines
    that are excluded for the job."""

    def __init__(
        self,
        index: RequirementIndex,
        without: frozenset[str] = frozenset(),
        asking: frozenset[str] = frozenset(),
    ) -> None:
        self._index = index
        self._without = without
        self._asking = asking

    def asking(self) -> EngineInfo | None:
        """See `IdleEngines.asking`."""
        for engine_id in chain(self._asking, self._index.long_polls):
            info = self.get(engine_id)
            if info is not None:
                return info
        return None

    def fastest(self, *, streaming: bool = False) -> EngineInfo | None:
        """See `IdleEngines.fastest`."""
        ranked = self._index.ranked_streaming if streaming else self._index.ranked
        best = next((i for _, i in ranked if i not in self._without), None)
        return None if best is None else self.get(best)

    def slowest(self) -> EngineInfo | None:
        """See `IdleEngines.slowest`; of equally slow ones the first by id."""
        ranked = self._index.ranked
        last = next((p for p in reversed(ranked) if p[1] not in self._without), None)
        if last is None:
            return None
        equals = ranked[bisect_left(ranked, (last[0], "")) :]
        return self.get(next(i for _, i in equals if i not in self._without))

    def get(self, engine_id: str) -> EngineInfo | None:
        """See `IdleEngines.get`."""
        entry = self._index.members.get(engine_id)
        if entry is None or engine_id in self._without:
            return None
        return entry.info(self._index.requirements.codec)

    def __iter__(self) -> Iterator[EngineInfo]:
        codec = self._index.requirements.codec
        infos = [e.info(codec) for i, e in self._index.members.items() if i not in self._without]
        infos.sort(key=lambda i: (i.benchmark_s is None, i.benchmark_s or 0.0, i.engine_id))
        return iter(infos)

    def __bool__(self) -> bool:
        return any(i not in self._without for i in self._index.members)
