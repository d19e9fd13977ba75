"""Audit a run: books, chronicle, store, the daemon's memory and its replies must all agree.

Each function returns the contradictions that it finds, in words; there should not be any.
"""

from collections import Counter
from typing import Any

import msgspec
from tests.core.kit import Disk, audited
from tests.simulation.books import ENDED, Books, Submitted, Try
from tests.simulation.world import DISPATCH, LEASE_S, World

from distconvd.testing.daemon import Daemon

Record = dict[str, Any]


class Audit:
    """Everything that is compared at the end of a run."""

    def __init__(self, world: World) -> None:
        self._books: Books = world.books
        self._chronicle = world.chronicle
        tables = world.memory.tables
        self._jobs: dict[str, Record] = {
            key: msgspec.json.decode(record) for key, record in tables["jobs"].items()
        }
        self._histories: dict[str, list[Record]] = {
            key: msgspec.json.decode(record)["attempts"]
            for key, record in tables["attempts"].items()
        }
        self._disk: Disk = tables
        self._by_uid = {uid: job for uid, job in world.books.jobs.items() if job.job_id is not None}

    def faults(self) -> list[str]:
        """Return every contradiction."""
        found = [*self._books.faults, *self._chronicle.faults, *self._submissions()]
        found += audited(self._disk, over_slots_ok=True)
        found += self._assignments_shown()
        for job_id, job in self._jobs.items():
            history = self._histories.get(job_id, [])
            reports = self._books.reports.get(job_id, [])
            found += self._end(job, history, reports)
            found += self._history(job, history)
            found += self._causes(job_id, history, reports)
            found += self._reported(job_id, history, reports)
            found += self._losses(job_id, history)
            found += self._retries(job, history)
        for known in self._by_uid.values():
            found += self._client_had_its_way(known)
        return found + self._order()

    # --------------------------------------------------------------------- jobs and clients

    def _submissions(self) -> list[str]:
        """Every acknowledged job is there once and as submitted; a refused one is not there."""
        faults: list[str] = []
        seen: Counter[str] = Counter(job["labels"].get("uid", "?") for job in self._jobs.values())
        for uid, count in seen.items():
            known = self._books.jobs.get(uid)
            if known is None:
                faults.append(f"invented: {uid}")
            elif count > 1:
                faults.append(f"doubled: {uid}, {count} times")
            elif known.job_id is None and 0 not in known.tries:
                faults.append(f"refused, but it exists: {uid}, {known.tries}")
        for uid, known in self._by_uid.items():
            job = self._jobs.get(known.job_id or "")
            if job is None:
                faults.append(f"lost: {uid} was acknowledged as {known.job_id}")
                continue
            patched = {field for op in known.ops for field in op.body}
            faults += [
                f"changed: {known.job_id}.{field} is {job[field]!r}"
                for field in known.body.keys() - patched - {"not_before"}
                if job[field] != known.body[field]
            ]
        return faults

    def _client_had_its_way(self, job: Submitted) -> list[str]:
        """What a client changed is changed at the end; what was refused was not done."""
        job_id = job.job_id or ""
        record, faults = self._jobs.get(job_id, {}), list[str]()
        patches = [op for op in job.ops if op.kind == "patch" and op.may_count]
        for field in {field for op in patches for field in op.body}:
            as_submitted = job.body.get(field, False)
            allowed = [as_submitted, *(op.body[field] for op in patches if field in op.body)]
            sure = [i for i, op in enumerate(patches) if op.status == 200 and field in op.body]
            last = [patches[i].body[field] for i in sure[-1:]] or allowed
            if record.get(field) not in last and not self._chronicle.restarts[job_id]:
                faults.append(f"{job_id}.{field} is {record.get(field)}, was patched to {last}")
        for kind, done in (
            ("restart", self._chronicle.restarts[job_id]),
            ("cancel", self._chronicle.cancels[job_id]),
        ):
            tries = [op for op in job.ops if op.kind == kind]
            # Cancelling twice is one cancel; a restart is one each time.
            sure_of = sum(op.status == 200 for op in tries)
            least = min(1, sure_of) if kind == "cancel" else sure_of
            most = sum(op.may_count for op in tries)
            if not least <= done <= most:
                faults.append(f"{job_id}: {kind} {done} times, not {least} to {most}")
        last_op = job.ops[-1] if job.ops else None
        is_cancelled = record.get("status") == "cancelled"
        if last_op and (last_op.kind, last_op.status) == ("cancel", 200) and not is_cancelled:
            faults.append(f"uncancelled: {job_id} is {record.get('status')}")
        return faults

    # --------------------------------------------------------------------- attempts

    def _assignments_shown(self) -> list[str]:
        """No attempt was assigned to two engines, and each to the engine that the disk names."""
        return [
            f"attempt {attempt} of {job_id} was given to {sorted(engines)},"
            f" on disk it is {self._chronicle.given.get((job_id, attempt))}'s"
            for (job_id, attempt), engines in self._books.assignments.items()
            if engines != {self._chronicle.given.get((job_id, attempt), ("",))[0]}
        ]

    def _end(self, job: Record, history: list[Record], reports: list[Try]) -> list[str]:
        """It has ended, and its end agrees with the last attempt and with the reports."""
        job_id, status = job["job_id"], job["status"]
        last = history[-1] if history else None
        since = [a for a in history if a["number"] > job["base_attempt"]]
        if status not in ENDED:
            return [f"open: {job_id} is {status}"]
        if job["progress"] is not None or job["finished_at"] is None:
            return [f"not ended properly: {job}"]
        if status == "completed":
            done = [a for a in since if a["outcome"] == "completed"]
            outputs = {t.body["output_url"] for t in reports if _is(t, "complete")}
            if len(done) != 1 or done[0] is not last or job["output_url"] not in outputs:
                return [f"{job_id} is done with {job['output_url']}, but {history}, {outputs}"]
        elif status == "failed_permanently":
            if not last or last["outcome"] not in ("failed", "lost") or last["requeued"]:
                return [f"{job_id} has failed, but {history}"]
            return self._deserved(job, last, since)
        if status != "completed" and job["output_url"] is not None:
            return [f"{job_id} is {status} and has an output"]
        return []

    def _deserved(self, job: Record, last: Record, since: list[Record]) -> list[str]:
        """A job may be given up only when its limits are used up, its source is bad, the place of its
        output refuses it, or it is out of reach of each of several engines."""
        if last["outcome"] == "lost":
            is_right = sum(a["outcome"] == "lost" for a in since) == DISPATCH["lost_attempts_max"]
        elif last["error_class"] in ("input", "output"):
            is_right = True
        elif last["error_class"] in ("not_allowed", "no_access"):
            tried = [a["engine_id"] for a in since if a["error_class"] == last["error_class"]]
            is_right = len(set(tried)) == len(tried)
        else:
            is_right = job["retries"] == job["max_retries"]
        return [] if is_right else [f"{job['job_id']} was given up too early or late: {since}"]

    def _history(self, job: Record, history: list[Record]) -> list[str]:
        """Attempt numbers go up by one without gaps; only a late legacy report repeats one."""
        numbers = [a["number"] for a in history]
        faults: list[str] = []
        if sorted(set(numbers)) != list(range(1, job["attempt"] + 1)) or numbers != sorted(numbers):
            faults.append(f"history of {job['job_id']}: {numbers}, it is at {job['attempt']}")
        for number, count in Counter(numbers).items():
            late = [t for t in self._books.reports.get(job["job_id"], []) if _is_legacy(t)]
            if count > 1 and len(late) < count - 1:
                faults.append(f"attempt {number} of {job['job_id']} ended {count} times")
        return faults

    def _causes(self, job_id: str, history: list[Record], reports: list[Try]) -> list[str]:
        """Every attempt ended by a report or an expired lease."""
        return [
            f"attempt {a['number']} of {job_id} ended as {a['outcome']}, which nobody reported: {a}"
            for a in history
            if _kind_of(a) and not any(_says(t, a) for t in reports)
        ]

    def _reported(self, job_id: str, history: list[Record], reports: list[Try]) -> list[str]:
        """Every report that was accepted is in the history."""
        return [
            f"{t.kind} of {job_id} was accepted, but is not in the history: {t.body}, {history}"
            for t in reports
            if t.status == 200 and not any(_says(t, a) for a in history)
        ]

    def _losses(self, job_id: str, history: list[Record]) -> list[str]:
        """An attempt is lost only a whole lease after its last renewal, or with its engine."""
        faults: list[str] = []
        for a in history:
            if a["outcome"] != "lost" or a["reported"]:
                continue
            key = (job_id, a["number"])
            if "was removed" in a["message"]:
                if a["engine_id"] not in self._books.removed:
                    faults.append(f"nobody removed {a['engine_id']}: {a}")
                continue
            renewals = [ms for ms in self._books.renewed.get(key, []) if ms < a["ended_at"]]
            since_ms = max([a["started_at"], *renewals])
            if a["ended_at"] < since_ms + LEASE_S * 1000 - 1:
                faults.append(f"{key} was lost {a['ended_at'] - since_ms} ms after its renewal")
        return faults

    def _retries(self, job: Record, history: list[Record]) -> list[str]:
        """Only an engine's failure costs a retry; a transient one only beyond its limit; a lost
        engine, a release or a cancellation never."""
        charged, transient = 0, 0
        for a in history:
            if a["number"] <= job["base_attempt"] or a["outcome"] != "failed":
                continue
            is_beyond = transient >= DISPATCH["transient_attempts_max"]
            transient += a["error_class"] == "transient"
            costs = a["error_class"] in ("engine", "verification")
            charged += a["requeued"] and (costs or (a["error_class"] == "transient" and is_beyond))
        if charged != job["retries"]:
            return [f"{job['job_id']} has {job['retries']} retries, not {charged}: {history}"]
        return []

    # --------------------------------------------------------------------- order

    def _order(self) -> list[str]:
        """In a lane (one engine can take its jobs) higher priority goes first, then age.

        A job was overtaken when another got its first attempt while it had been acknowledged, was
        ready, and ranked before that one.
        """
        lanes: dict[str, list[tuple[Submitted, Record, int]]] = {}
        for known in self._by_uid.values():
            job = self._jobs.get(known.job_id or "")
            lane = known.body.get("requires", ["-"])[0]
            if job is None or not lane.startswith("lane") or "not_before" in known.body:
                continue
            if any(op.kind in ("patch", "restart") for op in known.ops):
                continue
            first = self._chronicle.given.get((job["job_id"], 1))
            began_ms = first[1] if first else job["finished_at"] or 0
            lanes.setdefault(lane, []).append((known, job, began_ms))
        return [
            f"overtaken: {slow[1]['job_id']} by {fast[1]['job_id']} in {lane}"
            for lane, jobs in lanes.items()
            for fast in jobs
            for slow in jobs
            if fast[1]["attempt"] and slow[0].acked_ms < fast[2] < slow[2]
            if _rank(slow[1]) < _rank(fast[1])
        ]


_KINDS = {"completed": "complete", "failed": "fail", "released": "release"}


def _kind_of(attempt: Record) -> str:
    """Return the kind of report that ends an attempt like this; empty if the dispatcher ends it."""
    if attempt["outcome"] == "lost":
        return "fail" if attempt["reported"] else ""
    return _KINDS.get(attempt["outcome"], "")


def _is(report: Try, kind: str) -> bool:
    return report.kind == kind and report.may_count


def _is_legacy(report: Try) -> bool:
    return report.may_count and "attempt" not in report.body


def _says(report: Try, attempt: Record) -> bool:
    """Whether this report ended this attempt."""
    if not _is(report, _kind_of(attempt)):
        return False
    words = report.body.get("error_message") or report.body.get("reason")
    if attempt["message"] != words:
        return False
    if _is_legacy(report):
        return True
    return (report.body["attempt"], report.body["engine_id"]) == (
        attempt["number"],
        attempt["engine_id"],
    )


def _rank(job: Record) -> tuple[int, int]:
    return -job["priority"], int(job["job_id"].partition("_")[0])


def wait_quiet(daemon: Daemon, world: World) -> list[str]:
    """Compare the daemon's memory with the disk; with all jobs ended and all engines silent
    nothing may be left over."""
    core = daemon.parts.dispatcher
    state, faults = core.state, list[str]()
    for table, records in world.memory.tables.items():
        if getattr(state, table) != records:
            faults.append(f"memory and disk differ in {table}")
    pool = state.pool
    left: dict[str, object] = {
        "leases": state.runtime.leases,
        "assigned jobs": {e: list(assigned) for e, assigned in state.assigned.items() if assigned},
        "progress": state.progress,
        "reservations": state.reservations,
        "delayed jobs": state.delayed,
        "jobs in the queue": len(state.queue),
        "hold reasons": state.hold_reasons,
        "reserved": [e for e, entry in pool.engines.items() if entry.reserved],
        "engines in a long poll": [e for e, entry in pool.engines.items() if entry.long_polls],
        "count of long polls": pool.long_polls,
        "engines online": [e for e, entry in pool.engines.items() if not entry.offline],
        "unacknowledged": {e: list(jobs) for e, jobs in state.runtime.unacked.items() if jobs},
        "reminders": state.runtime.timers.next_s(),
        "store failure": daemon.parts.ledger.failure,
        "policy failures": core.policy.failures,
        "listener failures": sum(daemon.parts.event_bus.failures.values()),
    }
    faults += [f"left over: {name}: {what}" for name, what in left.items() if what]
    return faults


async def shown(daemon: Daemon, world: World) -> list[str]:
    """Compare what the daemon shows with what is on disk: every job, and some histories."""
    listed: dict[str, Any] = {}
    path = "/jobs/?limit=1000"
    while path:
        reply = await daemon.client.get(path)
        listed |= {job["job_id"]: job for job in reply.json()}
        cursor = reply.headers.get("x-next-cursor")
        path = f"/jobs/?limit=1000&cursor={cursor}" if cursor else ""
    tables = world.memory.tables
    on_disk = {key: msgspec.json.decode(record) for key, record in tables["jobs"].items()}
    faults = [] if listed == on_disk else ["the listing differs from the disk"]
    for job_id in list(tables["attempts"])[::50]:
        said = (await daemon.client.get(f"/jobs/{job_id}/attempts")).json()
        if said != msgspec.json.decode(tables["attempts"][job_id])["attempts"]:
            faults.append(f"the attempts of {job_id} are shown as {said}")
    return faults
