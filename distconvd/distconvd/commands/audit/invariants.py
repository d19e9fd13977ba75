"""Define the invariants of the core as rules on a job and its history; tests use them too.

A rule is a pure function of a `Case` that returns what is wrong, or None. A rule only forbids what no
daemon has ever written at any moment, crashes included: a rule that reports a sound store is worse than
no rule. Legal, though it looks wrong:

- A job taken over from the original has no `finished_at`, no attempts, and may be assigned at attempt 0.
- A legacy report (without an attempt) on a pending job leaves a second entry of the same number, or
  one of number 0.
- A history is cut to its newest entries; `dropped` says how many are gone.
- A job taken over from the original has retries that no attempt on record explains, and maybe more
  than it was allowed; only a restart (`base_attempt`) sets the count to 0. No retry is ever added beyond
  the allowed number.

`REMEDIES` has a row for every kind of finding, including those of `stored` and `running`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from distconvd.commands.audit.finding import Finding
from distconvd.commands.counts import count
from distconvd.model import (
    FAILURES,
    TERMINAL_STATUSES,
    Attempt,
    AttemptHistory,
    AttemptOutcome,
    Charge,
    FailureClass,
    Job,
    JobStatus,
)

_REPORT = "Report it, with this line and the daemon's log"
_RETRY = "`distconv retry ID` restarts the job"
_BACKUP = "Restore it from a backup, or stop the daemon and remove the record"

REMEDIES: dict[str, str] = {
    # A job by itself.
    "no-end": f"{_RETRY}.",
    "early-end": "`distconv cancel ID` and then `distconv retry ID` set it right.",
    "no-output": f"No record says where the result is; {_RETRY}.",
    "stray-output": f"{_REPORT}.",
    "stray-progress": "The job's next change removes it; nothing to do.",
    "no-holder": "After a restart the job waits for a lease to expire, and is queued again.",
    "stray-holder": f"{_REPORT}; `distconv cancel ID` and `distconv retry ID` set it right.",
    "retries": f"{_REPORT}; {_RETRY}.",
    "base-attempt": f"{_REPORT}; {_RETRY}.",
    # A job and its attempts.
    "attempt-missing": "The job goes on without that part of its history; nothing to do.",
    "attempt-beyond": f"{_REPORT}; `distconv cancel ID` stops any engine that works on it.",
    "attempt-order": f"{_REPORT}.",
    "attempt-running": f"{_REPORT}.",
    "wrong-end": f"See `distconv attempts ID`; {_RETRY}.",
    "done-twice": f"Compare the results that `distconv attempts ID` lists. {_REPORT}.",
    "retries-uneven": f"{_REPORT}; {_RETRY}.",
    # Jobs and engines.
    "unknown-engine": "Its lease will expire, and the job goes to another engine; nothing to do.",
    "over-slots": "Expected only after the engine was restarted with fewer --slots; it then ends by itself.",
    # Records.
    "job-unreadable": f"The daemon leaves the job out. {_BACKUP}.",
    "job-repaired": "The daemon drops the fields that it cannot read, and goes on with the rest.",
    "job-misfiled": "The daemon uses the key as the job's id; check which one is right.",
    "engine-unreadable": "The engine's next heartbeat registers it again; nothing to do.",
    "engine-misfiled": "The daemon uses the key as the engine's id; nothing to do.",
    "attempts-unreadable": f"The job goes on without its history. {_BACKUP}.",
    "attempts-misfiled": f"The job goes on with what may be another job's history. {_BACKUP}.",
    "attempts-orphaned": "Stop the daemon and remove the record, or restore the job from a backup.",
    "meta-unreadable": "The key counts as new. Stop the daemon and remove the record.",
    "floor-unreadable": "No daemon can start with it. Stop the daemon and remove the record.",
    "key-to-nowhere": "A repeated submission with this key fails; submit with another one.",
    "damage": "`distconvd audit --repair` acknowledges it.",
    "damage-touched": f"Compare it with what you know of it: submit a missing job again, and {_RETRY}.",
    "store": "Copy all of the store's files to a safe place before the next start.",
    # The archive.
    "archive-garbage": "Restore the file from a backup; the daemon skips the line.",
    "archive-open": f"{_REPORT}.",
    "archive-misplaced": "The job is not found by its id; move the line to that file.",
    "archive-floor": "A new job may get the id of an old one; restore the store's newest backup.",
    # A running daemon.
    "held-apart": f"{_REPORT}; a restart of the daemon rebuilds the assignments from the records.",
    "reserved-apart": f"{_REPORT}; the reservation expires by itself.",
    "listed-twice": f"{_REPORT}.",
}
"""What to do about each kind of finding; `ID` is the job's."""
_CHANGING = ("`distconv retry ID`", "`distconv cancel ID`")
_ARCHIVED = (
    "It is archived and cannot be restarted; see `distconv attempts ID`, and submit it again if its"
    " result is needed."
)


def remedy_of(finding: Finding) -> str:
    """Return what to do about a finding: no command can change an archived job."""
    remedy = REMEDIES[finding.kind]
    is_impossible = finding.is_archived and any(command in remedy for command in _CHANGING)
    return _ARCHIVED if is_impossible else remedy


class Case(NamedTuple):
    """A job with its ended attempts."""

    job: Job
    history: AttemptHistory

    @property
    def past(self) -> list[Attempt]:
        """The ended attempts, oldest first."""
        return self.history.attempts

    @property
    def is_foreign(self) -> bool:
        """Whether the original wrote the job and no daemon of ours has run it."""
        return not self.job.attempt and not self.past and self.job.error_class is None

    @property
    def since_restart(self) -> list[Attempt]:
        """The attempts that count: those after a person last restarted the job."""
        return [a for a in self.past if a.number > self.job.base_attempt]

    @property
    def charged(self) -> int:
        """How many retries are certainly charged. Others may be: a legacy report just after a restart
        has the number of the attempt before, and transient failures are charged only beyond a limit."""
        return sum(_is_requeued_failure(a, _CHARGED) for a in self.since_restart)

    @property
    def may_have_brought_retries(self) -> bool:
        """Whether the job may come from the original and has never been restarted here."""
        return not self.job.base_attempt


def job_findings(job: Job, history: AttemptHistory | None) -> Iterator[Finding]:
    """Yield every rule that a job breaks by itself.

    Args:
        job: as stored, or as shown.
        history: its ended attempts; None: not known, so only the job is checked.
    """
    case = Case(job, history or AttemptHistory(job.job_id))
    rules = _JOB_RULES if history is None else _ALL_RULES
    for kind, rule in rules.items():
        detail = rule(case)
        if detail is not None:
            yield Finding(kind, f"job {job.job_id}", detail)


def _no_end(case: Case) -> str | None:
    if case.job.status not in TERMINAL_STATUSES or case.job.finished_at is not None:
        return None
    return None if case.is_foreign else f"it is {case.job.status}, but has no finished_at"


def _early_end(case: Case) -> str | None:
    if case.job.status in TERMINAL_STATUSES or case.job.finished_at is None:
        return None
    return f"it is {case.job.status}, but has a finished_at"


def _no_output(case: Case) -> str | None:
    is_bad = case.job.status is JobStatus.COMPLETED and not case.job.output_url
    return "it is completed, but has no output_url" if is_bad and not case.is_foreign else None


def _stray_output(case: Case) -> str | None:
    job = case.job
    if job.status is JobStatus.COMPLETED or (not job.output_url and job.result is None):
        return None
    return None if case.is_foreign else f"it is {job.status}, but has an output or a result"


def _stray_progress(case: Case) -> str | None:
    job = case.job
    is_bad = job.progress is not None and job.status is not JobStatus.ASSIGNED
    return f"it is {job.status}, but shows progress" if is_bad else None


def _no_assigned_engine(case: Case) -> str | None:
    is_bad = case.job.status is JobStatus.ASSIGNED and not case.job.assigned_engine
    return "it is assigned, but to no engine" if is_bad else None


def _stray_assigned_engine(case: Case) -> str | None:
    job = case.job
    is_bad = job.status is JobStatus.PENDING and job.assigned_engine
    return f"it is pending, but names the engine {job.assigned_engine!r}" if is_bad else None


def _retries(case: Case) -> str | None:
    job = case.job
    if 0 <= job.retries <= max(0, job.max_retries):
        return None
    if job.retries > 0 and case.may_have_brought_retries and not case.charged:
        return None
    return f"its retries are {job.retries}, but at most {job.max_retries} are allowed"


def _base_attempt(case: Case) -> str | None:
    job = case.job
    if 0 <= job.base_attempt <= job.attempt:
        return None
    return f"it was restarted after attempt {job.base_attempt}, but is at attempt {job.attempt}"


def _attempt_missing(case: Case) -> str | None:
    """Attempts are numbered without gaps; all but the running one are in the history."""
    ended = case.job.attempt - (case.job.status is JobStatus.ASSIGNED)
    there = sorted({a.number for a in case.past if a.number})
    first = there[0] if case.history.dropped and there else 1
    # Computed, without a loop over the numbers: a damaged record may be at attempt 10^18.
    missing = ended - first + 1 - sum(first <= number <= ended for number in there)
    if missing <= 0:
        return None
    return f"its history lacks {missing} of {count(ended, 'ended attempts')}"


def _attempt_beyond(case: Case) -> str | None:
    job = case.job
    limit = job.attempt - (job.status is JobStatus.ASSIGNED)
    over = [a.number for a in case.past if a.number > limit]
    # The original's assigned jobs are at attempt 0, and so are legacy reports on them.
    if not over or job.attempt == 0:
        return f"its history has attempt {max(over)}, but it has had none" if any(over) else None
    state = "is running" if job.status is JobStatus.ASSIGNED else "is at"
    return f"its history has attempt {max(over)} as ended, but it {state} attempt {job.attempt}"


def _attempt_order(case: Case) -> str | None:
    numbers = [a.number for a in case.past]
    is_good = numbers == sorted(numbers) and (not numbers or numbers[0] >= 0)
    return None if is_good else f"its attempts are in the order {numbers[:20]}"


def _attempt_running(case: Case) -> str | None:
    open_ones = [a.number for a in case.past if a.outcome is AttemptOutcome.RUNNING]
    return f"its history has attempt {open_ones[0]} as running" if open_ones else None


def _wrong_end(case: Case) -> str | None:
    """The last attempt says how the job ended."""
    status = case.job.status
    lawful = _LAST_OUTCOMES.get(status)
    if lawful is None or not case.past:
        return None
    last = case.past[-1]
    is_good = last.outcome in lawful and not last.requeued
    return None if is_good else f"it is {status}, but its last attempt was {_words(last)}"


def _done_twice(case: Case) -> str | None:
    done = [a for a in case.since_restart if a.outcome is AttemptOutcome.COMPLETED]
    allowed = case.job.status is JobStatus.COMPLETED
    if len(done) <= allowed:
        return None
    if not allowed:
        return f"attempt {done[0].number} completed it, but it is {case.job.status}"
    return f"attempts {', '.join(str(a.number) for a in done)} all completed it"


def _retries_uneven(case: Case) -> str | None:
    """A retry is charged for an engine's failure, for a transient one only beyond a limit, and for
    nothing else."""
    job = case.job
    if case.history.dropped or not case.past:
        return None
    back = [a for a in case.past if a.number >= job.base_attempt]
    most = sum(_is_requeued_failure(a, _MAYBE_CHARGED) for a in back)
    if case.charged <= job.retries and (job.retries <= most or case.may_have_brought_retries):
        return None
    bounds = f"{case.charged} {'or more' if case.may_have_brought_retries else f'to {most}'}"
    return f"its retries are {job.retries}, but its attempts account for {bounds}"


def _is_requeued_failure(attempt: Attempt, classes: frozenset[FailureClass]) -> bool:
    is_failure = attempt.requeued and attempt.outcome is AttemptOutcome.FAILED
    return is_failure and attempt.error_class in classes


def _words(attempt: Attempt) -> str:
    return f"{attempt.outcome}{' and requeued it' if attempt.requeued else ''}"


_CHARGED = frozenset(c for c, rule in FAILURES.items() if rule.charged is Charge.ALWAYS)
_MAYBE_CHARGED = frozenset(c for c, rule in FAILURES.items() if rule.charged is not Charge.NEVER)
_LAST_OUTCOMES: dict[JobStatus, tuple[AttemptOutcome, ...]] = {
    JobStatus.COMPLETED: (AttemptOutcome.COMPLETED,),
    JobStatus.FAILED_PERMANENTLY: (AttemptOutcome.FAILED, AttemptOutcome.LOST),
}
_Rule = Callable[[Case], str | None]
_JOB_RULES: dict[str, _Rule] = {
    "no-end": _no_end,
    "early-end": _early_end,
    "no-output": _no_output,
    "stray-output": _stray_output,
    "stray-progress": _stray_progress,
    "no-holder": _no_assigned_engine,
    "stray-holder": _stray_assigned_engine,
    "retries": _retries,
    "base-attempt": _base_attempt,
}
_ATTEMPT_RULES: dict[str, _Rule] = {
    "attempt-missing": _attempt_missing,
    "attempt-beyond": _attempt_beyond,
    "attempt-order": _attempt_order,
    "attempt-running": _attempt_running,
    "wrong-end": _wrong_end,
    "done-twice": _done_twice,
    "retries-uneven": _retries_uneven,
}
_ALL_RULES = _JOB_RULES | _ATTEMPT_RULES
