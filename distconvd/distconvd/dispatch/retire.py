"""Retire ended jobs beyond a count or an age: they leave memory and store for the archive.

This module chooses them; the archive makes them durable first, and only then are they forgotten
here. A crash in between leaves a job in both places, which is harmless: the store is asked first,
and retiring the job again writes the same line.
"""

from typing import NamedTuple

import msgspec

from distconvd.dispatch.matching.queue import created_us
from distconvd.dispatch.state import State
from distconvd.dispatch.transaction import Transaction
from distconvd.model import TERMINAL_STATUSES

FLOOR_KEY = "job_id_floor_us"
"""Key of the meta record of the microseconds up to which no id may be used again."""


class Retired(NamedTuple):
    """A job that may be retired, with its history."""

    job_id: str
    job: bytes
    attempts: bytes | None


class Floor(msgspec.Struct, frozen=True):
    """The record under `FLOOR_KEY`."""

    us: int


def floor_of(state: State) -> int:
    """Return the microseconds up to which no id may be used again."""
    record = state.meta.get(FLOOR_KEY)
    return 0 if record is None else msgspec.json.decode(record, type=Floor).us


def retirable(tx: Transaction, count: int) -> list[Retired]:
    """Return up to `count` ended jobs over the limits, in the order in which they ended."""
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
    """Forget archived jobs, except those that have changed since; return how many."""
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
