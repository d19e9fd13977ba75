"""Retiring: ended jobs beyond a count or an age leave memory and store for the archive.

Which ones is decided here; the archive writes them first, durably, and only then are they forgotten
here. A crash in between leaves a job in both places, which is harmless: the store is asked first,
and retiring it again says the same.
"""

from typing import NamedTuple

import msgspec

from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.state import State
from distconvd.dispatch.transaction import Transaction
from distconvd.model import TERMINAL_STATUSES

FLOOR_KEY = "job_id_floor_us"
"""Meta record: no id with microseconds up to this may be given out again."""


class Retired(NamedTuple):
    """A job that may leave, with its history."""

    job_id: str
    job: bytes
    attempts: bytes | None


class Floor(msgspec.Struct, frozen=True):
    """The record under `FLOOR_KEY`."""

    us: int


def floor_of(state: State) -> int:
    """Return the microseconds up to which no id may be given out again."""
    record = state.meta.get(FLOOR_KEY)
    return 0 if record is None else msgspec.json.decode(record, type=Floor).us


def retirable(tx: Transaction, count: int) -> list[Retired]:
    """Return up to `count` ended jobs that are over the limits, those that ended first first."""
    state = tx.state
    surplus = len(state.finished) - tx.settings.finished_jobs_max
    ended_before_ms = tx.now.wall_ms - tx.settings.finished_age_s * 1000
    found: list[Retired] = []
    for job_id in state.finished:
        if len(found) >= count:
            break
        if len(found) >= surplus:
            job = state.job(job_id)
            if (job.finished_at or job.updated_at) >= ended_before_ms:
                break
        tx.read_set.add(("jobs", job_id))
        tx.read_set.add(("attempts", job_id))
        found.append(Retired(job_id, state.jobs[job_id], state.attempts.get(job_id)))
    return found


def forget(tx: Transaction, retired: list[Retired]) -> int:
    """Forget archived jobs, except those that changed since; return how many."""
    state = tx.state
    floor_us = floor_of(state)
    forgotten = 0
    for entry in retired:
        if state.jobs.get(entry.job_id) != entry.job:
            continue
        if state.job(entry.job_id).status not in TERMINAL_STATUSES:
            continue
        floor_us = max(floor_us, created_us(entry.job_id))
        tx.put("jobs", entry.job_id, None)
        if entry.attempts is not None:
            tx.put("attempts", entry.job_id, None)
        forgotten += 1
    if forgotten:
        tx.put("meta", FLOOR_KEY, b'{"us":%d}' % floor_us)
    return forgotten
