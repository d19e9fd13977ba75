"""Explain why a job waits or how it ended: a sentence for a person, and its facts."""

from typing import Any

import msgspec

from distconvd.dispatch.matching import Requirements
from distconvd.dispatch.matching.queue import requirements_of
from distconvd.dispatch.matching.requirements import split_marks
from distconvd.dispatch.state import State
from distconvd.dispatch.transaction import Transaction
from distconvd.model import EngineState, Job, JobStatus, describe_capability


class Why(msgspec.Struct, frozen=True):
    """The answer of `GET /jobs/{id}/why`."""

    job_id: str
    status: str
    summary: str
    facts: dict[str, Any] = {}


_LOSSES_SHOWN = 10
"""The result lists all of them."""


def why(tx: Transaction, job_id: str) -> Why:
    """Explain the present state of a job; raises `NotFound`."""
    job = tx.job(job_id)
    facts: dict[str, Any] = {"attempt": job.attempt, "retries": job.retries}
    if job.status is JobStatus.PENDING:
        tx.reads_all = True
        summary = _why_waiting(tx, job)
        facts["priority"] = job.priority
        facts["codec"] = requirements_of(job).codec
        facts["requires"] = job.requires
        facts["needs"] = job.needs
        facts["idle_engines_that_can_take_it"] = len(
            tx.state.pool.index(requirements_of(job)).members
        )
    elif job.status is JobStatus.ASSIGNED:
        lease_s = tx.runtime.leases.get(job_id, tx.now.mono_s) - tx.now.mono_s
        paused = " and is paused" if job.paused else ""
        reason = job.placement or "no reason recorded"
        summary = f"It is assigned to engine {job.assigned_engine}{paused}: {reason}."
        facts["lease_left_s"] = round(lease_s, 1)
        facts["started_at"] = job.started_at
    else:
        return why_ended(job)
    return Why(job_id, job.status.value, summary, facts)


def why_ended(job: Job, *, is_archived: bool = False) -> Why:
    """Explain how a job ended; an archived job cannot be started again."""
    again = "submit it again to repeat it" if is_archived else "POST …/retry starts it again"
    summary = f"{_how_ended(job, again)}{' It is in the archive.' if is_archived else ''}"
    facts = {"attempt": job.attempt, "retries": job.retries}
    return Why(job.job_id, job.status.value, summary, facts)


def _how_ended(job: Job, again: str) -> str:
    if job.status is JobStatus.COMPLETED:
        return f"It is done: {job.output_url}.{_lost(job)}"
    if job.status is JobStatus.CANCELLED:
        return f"Somebody cancelled it; {again}."
    return (
        f"It failed after {_count(job.attempt, 'attempt')} ({job.error_class or 'engine'}):"
        f" {job.error_message}; {again}."
    )


def _lost(job: Job) -> str:
    """Return what a damaged source had lost, in a sentence."""
    damage = (job.result and job.result.damage) or []
    if not damage:
        return ""
    more = f"; and {len(damage) - _LOSSES_SHOWN} more" if len(damage) > _LOSSES_SHOWN else ""
    return f" Its source is damaged, and this is lost: {'; '.join(damage[:_LOSSES_SHOWN])}{more}."


def _why_waiting(tx: Transaction, job: Job) -> str:
    """Say in one sentence what a pending job waits for."""
    state = tx.state
    if job.paused:
        return 'It is paused; continue it with distconv resume, or PATCH {"paused": false}.'
    if job.job_id in state.delayed and job.not_before is not None:
        wait_s = tx.runtime.left_s(tx.runtime.delay_end_s(job))
        cause = "the backoff after a failure" if job.error_message else "its not_before time"
        return f"It waits {wait_s:.0f} s more for {cause}."
    if job.job_id in state.reservations:
        return (
            f"It is reserved for engine {state.reservations[job.job_id]}, which the policy chose,"
            " until that engine asks for work."
        )
    requirements = requirements_of(job)
    blocked = _why_no_engine(tx, requirements)
    if blocked:
        return blocked
    if job.job_id in state.hold_reasons:
        return f"It stays in the queue for now: {state.hold_reasons[job.job_id]}."
    ahead = state.queue.ahead_of(job.job_id) if job.job_id in state.queue else 0
    if ahead:
        come = "come" if ahead > 1 else "comes"
        return (
            f"{_count(ahead, 'job')} that the same engines can take {come} before it"
            f"{_other_shares(state, job)}."
        )
    if job.job_id in state.queue and (rivals := state.queue.rivals_of(job.job_id)):
        return f"It is the next job of its share, which takes turns with {_some(rivals)}."
    return "It is first in the queue; an idle engine can take it but has not asked for work yet."


def _why_no_engine(tx: Transaction, requirements: Requirements) -> str | None:
    """Say what keeps every engine from such a job; None if an available engine can take it."""
    engines = list(tx.state.pool.engines.values())
    if not engines:
        return "No engine has registered yet."
    of_codec = [
        e for e in engines if e.ability.codecs is None or requirements.codec in e.ability.codecs
    ]
    if not of_codec:
        return f"No registered engine supports the codec {requirements.codec}."
    tags, needs = split_marks(requirements.requires)
    tagged = [e for e in of_codec if e.tags.issuperset(tags)]
    if not tagged:
        noun = "tag" if len(tags) == 1 else "tags"
        return f"No engine that supports {requirements.codec} has the {noun} {', '.join(tags)}."
    able = [e for e in tagged if e.ability.can_take(requirements)]
    if not able:
        return (
            f"No engine that could take it can convert this source: it needs the capability "
            f"{', '.join(map(describe_capability, needs))}. distconv engines shows what each engine lacks."
        )
    if any(tx.state.pool.is_available(e.record.engine_id) for e in able):
        ranked = [e for e in able if e.benchmark_s(requirements.codec) is not None]
        return None if ranked else "No engine that could take it has a benchmark yet."
    counts: dict[str, int] = {}
    for entry in able:
        word = "not asking for work" if entry.state is EngineState.IDLE else entry.state.value
        counts[word] = counts.get(word, 0) + 1
    listed = ", ".join(
        f"{n} {'is' if n == 1 else 'are'} {word}" for word, n in sorted(counts.items())
    )
    return f"No engine that can take it is free: {listed}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _other_shares(state: State, job: Job) -> str:
    """Return what a policy with shares adds to the number of jobs ahead."""
    rivals = state.queue.rivals_of(job.job_id)
    return f" in its share, which takes turns with {_some(rivals)}" if rivals else ""


def _some(shares: list[str]) -> str:
    """Name the first few shares, and count the rest."""
    shown = ", ".join(repr(share) for share in shares[:5])
    return shown if len(shares) <= 5 else f"{shown} and {len(shares) - 5} more"
