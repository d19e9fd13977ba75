"""Assign pending jobs to engines, or reserve them.

Nothing is assigned to a polling engine before it asks. So a match has two outcomes: the policy
places the job on an engine that is asking (then it is assigned), or on one that is not (then it is
reserved for that engine; the reservation expires after the reservation timeout). An engine is
asking while its request is being decided, while it waits in a long poll, or while its websocket is
open.
"""

import contextlib
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from distconvd.dispatch.lifecycle import JobEvent
from distconvd.dispatch.matching import AvailableEngines, EngineEntry, Requirements
from distconvd.dispatch.matching.pool import RequirementIndex
from distconvd.dispatch.matching.requirement_queue import QueueEntry
from distconvd.dispatch.matching.visits import Visits
from distconvd.dispatch.retries import engines_to_avoid, has_other_engine
from distconvd.dispatch.runtime import ROUNDING_S
from distconvd.dispatch.transaction import Transaction
from distconvd.errors import NotFound
from distconvd.model import AttemptOutcome, Job, new_attempt_fields
from distconvd.policy import Place

REQUIREMENTS_MAX = 256
"""Requirement queues of which the policy may place no job before the engine gets the answer "no
work": each has another codec or other tags, and there can be very many of them."""


class _Placed(NamedTuple):
    """What the policy decided for one job."""

    job: Job
    engine_id: str
    reason: str


def ask(tx: Transaction, engine_id: str) -> bytes | None:
    """Answer an engine that asks for work: return the job assigned to it, as on the wire, or None.

    A job that it was assigned before comes first if the engine never got it or has no free slot: so
    a lost reply costs nothing. Raises `NotFound` for an engine that never sent a heartbeat.
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
    tx.runtime.acknowledge(engine_id, assigned)
    return tx.job_view(assigned)


def add_waiter(tx: Transaction, engine_id: str, by: int) -> None:
    """Count `by` more (or, if negative, fewer) requests of the engine that wait for work.

    What was reserved for it since it asked is decided again, now that it can be delivered.
    """
    with tx.state.pool.changing(engine_id) as entry:
        if entry is None:
            return
        entry.long_polls = max(0, entry.long_polls + by)
        if by > 0:
            _clear_expired_reservation(tx, entry)
            for job_id in list(entry.reserved):
                tx.state.unreserve(job_id, requeue=True)


def has_unacked(tx: Transaction, engine_id: str) -> bool:
    """Whether the engine has an unacknowledged assignment."""
    entry = tx.state.pool.engines.get(engine_id)
    return entry is not None and unacked_job(tx, entry) is not None


def assign_any(tx: Transaction) -> bytes | None:
    """Assign the first job that the policy places on any engine; return it, or None."""
    for job_id in list(tx.state.reservations):
        tx.state.unreserve(job_id, requeue=True)
    with contextlib.closing(tx.state.queue.fronts.in_order(tx.state.pool.abilities)) as fronts:
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
    """Assign jobs to long-polling engines, after a change made a job or an engine available.

    Both loops start from what changed (`dirty`), never from all jobs or all engines: this runs
    after every command.
    """
    state = tx.state
    if not state.pool.long_polls:
        # Nobody waits: an engine that asks later looks at the whole queue itself.
        state.queue.dirty.clear()
        state.pool.dirty.clear()
    # A match may requeue reserved jobs or make engines available, which makes more dirty: go on
    # until nothing is.
    while state.queue.dirty or state.pool.dirty:
        dirty_requirements, state.queue.dirty = state.queue.dirty, {}
        dirty_engines, state.pool.dirty = state.pool.dirty, {}
        # New jobs: match this one requirement until no waiting engine can take it or the policy
        # places nothing more. `_match_once` may also reserve for an engine that does not wait.
        for requirements in dirty_requirements:
            while state.pool.index(requirements).long_polls and _match_once(
                tx, requirements, frozenset()
            ):
                pass
        # New engines: look at every requirement that each can take, until its slots are full. It
        # may be gone or unavailable by now, as the matches before may have used it.
        for engine_id in dirty_engines:
            entry = state.pool.engines.get(engine_id)
            while entry is not None and entry.long_polls and state.pool.is_available(engine_id):
                job_id = _match_for(tx, entry)
                if job_id is None:
                    break
                tx.runtime.note_unacked(engine_id, [job_id])
        # Matching unindexes an engine and indexes it again, which makes it dirty again; but what
        # there was for these engines has just been found.
        for engine_id in dirty_engines:
            state.pool.dirty.pop(engine_id, None)


def _clear_expired_reservation(tx: Transaction, entry: EngineEntry) -> None:
    """Let jobs be reserved again for an engine whose reservation expired, as it asks now."""
    if entry.reservation_expired:
        with tx.state.pool.changing(entry.record.engine_id):
            entry.reservation_expired = False


def unacked_job(tx: Transaction, entry: EngineEntry) -> str | None:
    """Return the oldest unacknowledged assignment of the engine, or None."""
    waiting = tx.runtime.unacked.get(entry.record.engine_id, {})
    for job_id in list(waiting):
        if job_id in entry.assigned:
            return job_id
        del waiting[job_id]
    return None


def _match_for(tx: Transaction, entry: EngineEntry) -> str | None:
    """Match until a job is assigned to this engine; return its id, or None if the policy places no
    job on it. Jobs that the policy places on other engines are assigned or reserved on the way."""
    state, engine_id = tx.state, entry.record.engine_id
    # Decide again what was reserved, lest it overtake a more urgent job that came later.
    for job_id in list(entry.reserved):
        state.unreserve(job_id, requeue=True)
    if not state.pool.is_available(engine_id):
        return None
    with contextlib.closing(state.queue.fronts.in_order([entry.ability])) as fronts:
        return _match_in_order(tx, engine_id, Visits(fronts, state.queue.front))


def _match_in_order(tx: Transaction, engine_id: str, visits: Visits) -> str | None:
    """Place jobs, first front first, until one is assigned to this engine; see `_match_for`."""
    looked_at = 0
    while looked_at < REQUIREMENTS_MAX and (requirements := visits.next()) is not None:
        placed = _match_once(tx, requirements, frozenset({engine_id}))
        if placed is None:
            # The policy places none of its first jobs now: do not ask about them again.
            looked_at += 1
        elif placed.engine_id == engine_id:
            return placed.job.job_id
        else:
            # The job went to another engine, so the next job of the same queue is in the running.
            visits.come_again(requirements)
    return None


def _match_once(
    tx: Transaction, requirements: Requirements, asking: frozenset[str]
) -> _Placed | None:
    """Place one job of a requirement: assign it to an asking engine, reserve it for any other."""
    placed = _place_next(tx, requirements, asking)
    if placed is None:
        return None
    job, engine_id, _ = placed
    if engine_id in asking or tx.state.pool.engines[engine_id].long_polls:
        _assign(tx, *placed)
        if engine_id not in asking:
            tx.runtime.note_unacked(engine_id, [job.job_id])
    else:
        until_s = tx.now.mono_s + tx.settings.pickup_s
        tx.state.reserve(job.job_id, engine_id, until_s)
        tx.runtime.timers.add(until_s, "reservation", job.job_id)
    return placed


def _place_next(
    tx: Transaction, requirements: Requirements, asking: frozenset[str] = frozenset()
) -> _Placed | None:
    """Ask the policy about the first few jobs of a requirement; return the first that it places."""
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
            state.hold_reasons[job.job_id] = (
                "it has failed on every idle engine and waits for another one"
            )
            continue
        answer = tx.policy.place(job, engines, tx.now.wall_ms)
        if isinstance(answer, Place):
            return _Placed(job, answer.engine_id, answer.reason)
        state.hold_reasons[job.job_id] = answer.reason
        if answer.until_ms is not None and answer.until_ms > tx.now.wall_ms:
            tx.runtime.remind_at_wall(answer.until_ms, "hold", job.job_id)
    return None


def _excluded_engines(tx: Transaction, job: Job, requirements: Requirements) -> frozenset[str]:
    """Return the engines that failed this job, as long as another one may take it instead."""
    if job.attempt == job.base_attempt:
        return frozenset()
    past = [a for a in tx.state.history(job.job_id).attempts if a.number > job.base_attempt]
    failed = {
        a.engine_id
        for a in past
        if a.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST) and a.engine_id is not None
    }
    if not failed or not has_other_engine(tx, requirements, failed):
        return frozenset()
    left_s = tx.runtime.elsewhere_end_s(job) - tx.now.mono_s
    if left_s < -ROUNDING_S:
        return frozenset(engines_to_avoid(past))
    tx.runtime.timers.add(tx.now.mono_s + left_s + 0.001, "excluded", job.job_id)
    return frozenset(failed)


def _assign(tx: Transaction, job: Job, engine_id: str, reason: str) -> Job:
    """Start the next attempt of a job on an engine."""
    tx.state.unreserve(job.job_id)
    tx.state.queue.charge(job)
    job = tx.move_job(
        job,
        JobEvent.ASSIGN,
        **new_attempt_fields(
            assigned_engine=engine_id,
            attempt=job.attempt + 1,
            started_at=tx.now.wall_ms,
            placement=reason,
        ),
    )
    tx.runtime.grant_lease(job.job_id)
    tx.runtime.assigned_s[job.job_id] = tx.now.mono_s
    tx.read_set.add(("jobs", job.job_id))
    tx.emit("job.assigned", job, reason=reason)
    return job


__all__ = ["add_waiter", "ask", "assign_any", "has_unacked", "serve_long_polls", "unacked_job"]
