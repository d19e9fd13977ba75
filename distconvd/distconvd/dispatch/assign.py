"""Matching: which pending job goes to which engine, and when.

Nothing is assigned to a polling engine before it asks. So a match has two outcomes: the policy
places the job on an engine that is asking (then it is assigned), or on one that is not (then it is
reserved for that one, and lapses if it is not collected within the pick-up time). An engine is
asking while its request is being decided, while its long poll is parked here, or while its
websocket is open.
"""

import contextlib
import heapq
import itertools
from collections.abc import Collection, Generator, Iterable, Iterator
from typing import NamedTuple

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.matching import AvailableEngines, EngineEntry, Requirements
from distconvd.dispatch.matching.fronts import IndexedFront
from distconvd.dispatch.matching.pool import Ability, RequirementIndex
from distconvd.dispatch.matching.queue import QueueEntry
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import NotFound
from distconvd.model import AttemptOutcome, Job
from distconvd.policy import Place

REQUIREMENTS_MAX = 256
"""Lines that a policy may leave without placing a job of them before an engine is told that there
is nothing for it: each is of another codec or other tags, and together they can be very many."""


class _Placed(NamedTuple):
    """What the policy decided for one job."""

    job: Job
    engine_id: str
    reason: str


def ask(tx: Transaction, engine_id: str) -> bytes | None:
    """An engine asks for work: return the job assigned to it, as on the wire, or None.

    What it already holds comes first where it has no free slot or never got it: a lost reply costs
    nothing. Raises `NotFound` for an engine that never sent a heartbeat.
    """
    state = tx.state
    tx.read_set.add(("engines", engine_id))
    entry = state.pool.engines.get(engine_id)
    if entry is None:
        raise NotFound("Engine not found: send a heartbeat first")
    _clear_expired_reservation(tx, entry)
    assigned = unacked_job(tx, entry)
    if assigned is None and len(entry.assigned) >= entry.record.slots:
        assigned = next((job_id for job_id in entry.assigned if job_id not in entry.named), None)
    if assigned is None:
        assigned = _match_for(tx, entry)
    if assigned is None:
        return None
    tx.runtime.unacked.get(engine_id, {}).pop(assigned, None)
    return tx.job_view(assigned)


def add_waiter(tx: Transaction, engine_id: str, by: int) -> None:
    """Note that `by` more (or, negative, fewer) requests of the engine wait for work here.

    What was reserved for it since it asked is decided afresh, now that it can be told.
    """
    entry = tx.state.pool.engines.get(engine_id)
    if entry is None:
        return
    tx.state.pool.unindex_engine(engine_id)
    entry.long_polls = max(0, entry.long_polls + by)
    if by > 0:
        _clear_expired_reservation(tx, entry)
        for job_id in list(entry.reserved):
            tx.state.unreserve(job_id, requeue=True)
    tx.state.pool.index_engine(engine_id)


def has_unacked(tx: Transaction, engine_id: str) -> bool:
    """Whether a job was assigned to the engine that did not reach it yet."""
    entry = tx.state.pool.engines.get(engine_id)
    return entry is not None and unacked_job(tx, entry) is not None


def assign_any(tx: Transaction) -> bytes | None:
    """Assign the next job that the policy can place to whichever engine it chooses, or None."""
    for job_id in list(tx.state.reservations):
        tx.state.unreserve(job_id, requeue=True)
    with contextlib.closing(_fronts(tx, list(tx.state.pool.abilities))) as fronts:
        found = (
            _place_next(tx, requirements)
            for _, requirements in itertools.islice(fronts, REQUIREMENTS_MAX)
        )
        placed = next((placed for placed in found if placed is not None), None)
    if placed is None:
        return None
    _assign(tx, *placed)
    return tx.job_view(placed[0].job_id)


def serve_long_polls(tx: Transaction) -> None:
    """Place jobs on engines that are waiting, after something made a job or an engine free."""
    state = tx.state
    if not state.pool.long_polls:
        state.queue.dirty.clear()
        state.pool.dirty.clear()
    while state.queue.dirty or state.pool.dirty:
        requirement_list, state.queue.dirty = state.queue.dirty, {}
        engines, state.pool.dirty = state.pool.dirty, {}
        for requirements in requirement_list:
            while state.pool.index(requirements).long_polls and _match_once(
                tx, requirements, frozenset()
            ):
                pass
        for engine_id in engines:
            entry = state.pool.engines.get(engine_id)
            while entry is not None and entry.long_polls and state.pool.is_available(engine_id):
                job_id = _match_for(tx, entry)
                if job_id is None:
                    break
                _note_unacked(tx, engine_id, job_id)
        # Matching takes an engine out of the pool and puts it back, which wakes it again; but what
        # there was for these has just been found.
        for engine_id in engines:
            state.pool.dirty.pop(engine_id, None)


def _clear_expired_reservation(tx: Transaction, entry: EngineEntry) -> None:
    """An engine asks, so jobs may be meant for it again even if it let one lapse."""
    if entry.reservation_expired:
        tx.state.pool.unindex_engine(entry.record.engine_id)
        entry.reservation_expired = False
        tx.state.pool.index_engine(entry.record.engine_id)


def unacked_job(tx: Transaction, entry: EngineEntry) -> str | None:
    """Return a job that was assigned to the engine while it waited, but never reached it."""
    waiting = tx.runtime.unacked.get(entry.record.engine_id, {})
    for job_id in list(waiting):
        if job_id in entry.assigned:
            return job_id
        del waiting[job_id]
    return None


def _note_unacked(tx: Transaction, engine_id: str, job_id: str) -> None:
    tx.runtime.unacked.setdefault(engine_id, {})[job_id] = None


def _match_for(tx: Transaction, entry: EngineEntry) -> str | None:
    """Match until a job is assigned to this engine; return its id, or None when none is meant for
    it. Jobs that the policy places elsewhere are assigned or reserved there on the way."""
    state, engine_id = tx.state, entry.record.engine_id
    state.refresh_engine(engine_id)
    # Decided afresh, so that a job that came later but goes before is not overtaken.
    for job_id in list(entry.reserved):
        state.unreserve(job_id, requeue=True)
    if not state.pool.is_available(engine_id):
        return None
    with contextlib.closing(_fronts(tx, [entry.ability])) as fronts:
        return _match_in_order(tx, engine_id, fronts)


def _match_in_order(tx: Transaction, engine_id: str, fronts: Iterator[IndexedFront]) -> str | None:
    """Place jobs, first in line first, until one is assigned to this engine, see `_match_for`."""
    again: list[IndexedFront] = []
    fresh = next(fronts, None)
    looked_at = 0
    while looked_at < REQUIREMENTS_MAX and (again or fresh is not None):
        if fresh is not None and (not again or fresh < again[0]):
            front, requirements = fresh
            fresh = next(fronts, None)
        else:
            front, requirements = heapq.heappop(again)
        present = tx.state.queue.front(requirements)
        if present is None:
            continue
        if present > front:
            heapq.heappush(again, (present, requirements))  # its share has had a turn meanwhile
            continue
        placed = _match_once(tx, requirements, frozenset({engine_id}))
        if placed is None:
            looked_at += 1
            continue
        if placed[1] == engine_id:
            return placed[0].job_id
        following = tx.state.queue.front(requirements)
        if following is not None:
            heapq.heappush(again, (following, requirements))
    return None


def _fronts(tx: Transaction, abilities: Collection[Ability]) -> Generator[IndexedFront]:
    """Yield the lines that engines of these abilities can take, each once, first head first.

    Engines that list codecs find their few lines at once; for those that take any, lines are looked
    at one by one, as far as they are asked for.
    """
    queue = tx.state.queue
    listed = {
        d for codecs, tags in abilities if codecs for d in queue.requirements_for(codecs, tags)
    }
    heap = [(front, d) for d in listed if (front := queue.front(d)) is not None]
    heapq.heapify(heap)
    with contextlib.closing(
        queue.fronts.walk([t for codecs, t in abilities if not codecs])
    ) as walk:
        anything = next(walk, None)
        while heap or anything is not None:
            if anything is not None and (not heap or anything <= heap[0]):
                if anything[1] not in listed:
                    yield anything
                anything = next(walk, None)
            else:
                yield heapq.heappop(heap)


def _match_once(
    tx: Transaction, requirements: Requirements, asking: frozenset[str]
) -> _Placed | None:
    """Place one job of a demand: assign it to an asking engine, reserve it for any other."""
    placed = _place_next(tx, requirements, asking)
    if placed is None:
        return None
    job, engine_id, _ = placed
    if engine_id in asking or tx.state.pool.engines[engine_id].long_polls:
        _assign(tx, *placed)
        if engine_id not in asking:
            _note_unacked(tx, engine_id, job.job_id)
    else:
        until_s = tx.now.mono_s + tx.settings.pickup_s
        tx.state.reserve(job.job_id, engine_id, until_s)
        tx.runtime.timers.add(until_s, "reservation", job.job_id)
    return placed


def _place_next(
    tx: Transaction, requirements: Requirements, asking: frozenset[str] = frozenset()
) -> _Placed | None:
    """Ask the policy about the first few jobs of a demand; return the first that it places."""
    state = tx.state
    index = state.pool.index(requirements)
    if not index.members:
        return None
    entries = state.queue.in_order(requirements)
    with contextlib.closing(entries):
        first_few = itertools.islice(entries, tx.settings.lookahead)
        return _first_placed(tx, index, asking, first_few)


def _first_placed(
    tx: Transaction, index: RequirementIndex, asking: frozenset[str], entries: Iterable[QueueEntry]
) -> _Placed | None:
    state = tx.state
    for entry in entries:
        job = state.job(entry.job_id)
        engines = AvailableEngines(index, _excluded_engines(tx, job, index.requirements), asking)
        if not engines:
            state.hold_reasons[job.job_id] = "waits for an engine that has not failed it"
            continue
        answer = tx.runtime.place(job, engines, tx.now.wall_ms)
        if isinstance(answer, Place):
            return _Placed(job, answer.engine_id, answer.reason)
        state.hold_reasons[job.job_id] = answer.reason
        if answer.until_ms is not None and answer.until_ms > tx.now.wall_ms:
            tx.runtime.timers.add(tx.runtime.wall_to_mono_s(answer.until_ms), "held", job.job_id)
    return None


def _excluded_engines(tx: Transaction, job: Job, requirements: Requirements) -> frozenset[str]:
    """Return the engines that failed this job, as long as another one may take it instead."""
    if job.attempt == job.base_attempt:
        return frozenset()
    history = tx.state.history(job.job_id).attempts
    failed = {
        a.engine_id
        for a in history
        if a.number > job.base_attempt
        and a.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST)
        and a.engine_id is not None
    }
    # A backoff is no wait for another engine: the time counts from its end.
    since_ms = max(job.updated_at, job.not_before or 0)
    left_s = tx.settings.retry_elsewhere_s - (tx.now.wall_ms - since_ms) / 1000
    if not failed or left_s < 0:
        return frozenset()
    fresh = (e for e in tx.state.pool.engines_for(requirements) if e.record.engine_id not in failed)
    if next(fresh, None) is None:
        return frozenset()
    tx.runtime.timers.add(tx.now.mono_s + left_s + 0.001, "elsewhere", job.job_id)
    return frozenset(failed)


def _assign(tx: Transaction, job: Job, engine_id: str, reason: str) -> Job:
    """Start the next attempt of a job on an engine."""
    tx.state.unreserve(job.job_id)
    tx.state.queue.charge(job)
    job = tx.move_job(
        job,
        JobEvent.ASSIGN,
        assigned_engine=engine_id,
        attempt=job.attempt + 1,
        started_at=tx.now.wall_ms,
        finished_at=None,
        not_before=None,
        placement=reason,
        error_message=None,
        error_class=None,
    )
    tx.runtime.grant_lease(job.job_id, tx.now.mono_s)
    tx.read_set.add(("jobs", job.job_id))
    tx.emit("job.assigned", job, reason=reason)
    return job


__all__ = ["add_waiter", "ask", "assign_any", "has_unacked", "serve_long_polls", "unacked_job"]
