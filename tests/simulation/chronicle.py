"""Check every record against the rules as soon as it becomes durable.

The chronicle reads what the store commits, so it knows the truth whatever the daemon says later,
through failed commits and kills of the daemon. It states the rules independently, in terms of two
records of one job; it does not use the daemon's own tables.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from tests.simulation.books import ENDED

from distconvd.store import Change


class Chronicle:
    """The history of the disk; `faults` lists what it should never contain.

    Attributes:
        jobs: the present record of each job.
        given: (job, attempt) to the engine that got it, and when (wall ms).
        records: every job record that was ever durable: a reply must be among them.
        moves: how often a job went from one status to another, by (from, to).
        restarts: how often each job was started again after an end.
        cancels: how often each job was cancelled.
    """

    def __init__(self, slots: dict[str, int]) -> None:
        self.faults: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.given: dict[tuple[str, int], tuple[str, int]] = {}
        self.records: set[bytes] = set()
        self.moves: Counter[tuple[str, str]] = Counter()
        self.restarts: Counter[str] = Counter()
        self.cancels: Counter[str] = Counter()
        self.open = 0
        """Jobs that have not ended."""
        self.resumed = 0
        self.changed = trio.Event()
        """Set, and replaced, at every commit."""
        self._slots = slots
        self._active_count: Counter[str] = Counter()

    def note(self, changes: Sequence[Change]) -> None:
        """Check what has just become durable."""
        for change in changes:
            if change.table == "jobs":
                self._job(change)
            elif change.record is None and change.table == "meta":
                self._fault(f"meta record {change.key} was deleted")
        self.changed.set()
        self.changed = trio.Event()

    def _fault(self, words: str) -> None:
        self.faults.append(f"chronicle: {words}")

    def _job(self, change: Change) -> None:
        old = self.jobs.get(change.key)
        if change.record is None:
            self._fault(f"{change.key} was deleted")
            return
        new = msgspec.json.decode(change.record)
        self.records.add(change.record)
        self.jobs[change.key] = new
        if old is None:
            self._created(new)
        else:
            self._moved(old, new)

    def _created(self, new: dict[str, Any]) -> None:
        self.open += 1
        if (new["status"], new["attempt"], new["retries"]) != ("pending", 0, 0):
            self._fault(f"{new['job_id']} was created as {new}")

    def _moved(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        job_id, was, now = new["job_id"], old["status"], new["status"]
        self.moves[was, now] += was != now
        self.open += (now not in ENDED) - (was not in ENDED)
        if was == "assigned" and now != "assigned":
            self._active_count[old["assigned_engine"]] -= 1
        if new["retries"] > new["max_retries"]:
            self._fault(f"{job_id} is at retry {new['retries']} of {new['max_retries']}")
        if was in ENDED:
            self._after_the_end(old, new)
        elif now == "assigned":
            self._assigned(old, new)
        elif new["attempt"] != old["attempt"]:
            self._fault(f"{job_id} went from attempt {old['attempt']} to {new['attempt']} as {now}")
        elif not 0 <= new["retries"] - old["retries"] <= (now == "pending"):
            self._fault(f"{job_id} went from {old['retries']} to {new['retries']} retries as {now}")
        self.cancels[job_id] += now == "cancelled" != was

    def _after_the_end(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        job_id = new["job_id"]
        is_restart = (
            new["status"] == "pending"
            and new["attempt"] == new["base_attempt"] == old["attempt"]
            and new["retries"] == 0
        )
        if not is_restart:
            self._fault(f"{job_id} had ended as {old['status']} and became {new}")
        self.restarts[job_id] += 1

    def _assigned(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        job_id, attempt, engine = new["job_id"], new["attempt"], new["assigned_engine"]
        if old["status"] == "assigned":
            if (attempt, engine) != (old["attempt"], old["assigned_engine"]):
                self._fault(f"{job_id} was taken from {old} for {new}")
            return
        self._active_count[engine] += 1
        before = self.given.get((job_id, attempt))
        if before is not None:
            self.resumed += 1
            if before[0] != engine:
                self._fault(f"attempt {attempt} of {job_id}: {before[0]}'s and {engine}'s")
            return
        if attempt != old["attempt"] + 1:
            self._fault(f"{job_id} went from attempt {old['attempt']} to {attempt}")
        if self._active_count[engine] > self._slots.get(engine, 0):
            self._fault(f"{engine} has {self._active_count[engine]} jobs, with {job_id}")
        self.given[job_id, attempt] = (engine, new["started_at"])
