"""Keep terminal reports on disk until the daemon has acknowledged them.

A report is written before it is sent, so it survives the engine, and a finished job is never
encoded again because its report was lost. Reports are idempotent at the daemon, so one that is sent
twice does no harm.

A report whose contents the daemon refuses would be refused again, and so would that of the next encode.
So it is replaced by a short failure, which ends the job.

Resource handling: `put` returns once the report is durable; `run` sends until it is cancelled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import trio

from distconv_engine.backoff import Backoff
from distconv_engine.daemon_link.http import DaemonApi, DaemonUnavailable, Rejected
from distconv_engine.files import describe_fault, safe_name, write_durably
from distconv_engine.logs import Log
from distconvd.model import FailReport, FailureClass, HeldJob

ReportKind = Literal["complete", "fail", "release"]

_CONTENTS_REFUSED = frozenset({400, 413, 415, 422, 431})
"""Statuses that say that the contents of a report are at fault, not when or by whom it is sent."""
_WORDS_MAX = 1000
"""Characters of the failure that is sent instead."""


class StoredReport(msgspec.Struct, frozen=True):
    """One report as it is stored on disk."""

    job_id: str
    attempt: int
    kind: ReportKind
    body: msgspec.Raw
    is_substitute: bool = False
    """It stands for a report that the daemon refused."""


class _Sender(msgspec.Struct):
    """What is repeated of a refused report."""

    engine_id: str | None = None


@dataclass(slots=True)
class _Entry:
    path: Path
    report: StoredReport
    done: trio.Event


class Outbox:
    """The reports that the daemon has not acknowledged yet."""

    def __init__(self, directory: Path, api: DaemonApi, log: Log) -> None:
        self._directory = directory
        self._api = api
        self._log = log
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._wake = trio.Event()
        directory.mkdir(parents=True, exist_ok=True)
        self._load()

    def __contains__(self, attempt: tuple[str, int]) -> bool:
        return attempt in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def for_heartbeat(self) -> list[HeldJob]:
        """Return the attempts to list in a heartbeat until the daemon knows how they ended."""
        return [HeldJob(job_id, attempt) for job_id, attempt in self._entries]

    async def put(self, job_id: str, attempt: int, kind: ReportKind, body: msgspec.Struct) -> None:
        """Make a report durable and queue it. The first report of an attempt wins."""
        if (job_id, attempt) in self._entries:
            return
        report = StoredReport(job_id, attempt, kind, msgspec.Raw(msgspec.json.encode(body)))
        path = self._directory / f"{safe_name(job_id)}.{attempt}.json"
        entry = _Entry(path, report, trio.Event())
        await self._store(entry)
        self._entries[job_id, attempt] = entry
        self._wake.set()

    async def _store(self, entry: _Entry) -> None:
        """Write a report to disk, in the place of an earlier one of the same attempt."""
        content = msgspec.json.encode(entry.report)
        try:
            with trio.CancelScope(shield=True):  # half a report is worse than a late cancellation
                await trio.to_thread.run_sync(write_durably, entry.path, content)
        except OSError as error:
            # A full disk is when a report matters most: it is sent from memory, and the daemon's
            # lease covers the case that this engine dies before that.
            self._log.error(
                "report is not stored on disk",
                job_id=entry.report.job_id,
                attempt=entry.report.attempt,
                reason=describe_fault(error),
            )

    async def wait_delivered(self, job_id: str, attempt: int) -> None:
        """Wait until the daemon has acknowledged or finally rejected the report."""
        entry = self._entries.get((job_id, attempt))
        if entry is not None:
            await entry.done.wait()

    async def run(self) -> None:
        """Send all reports, also those that are added later, until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            if await self._send_all():
                backoff.reset()
                continue
            with trio.move_on_after(backoff.next_s()):
                await self._wake.wait()
            self._wake.set()

    async def _send_all(self) -> bool:
        """Try each report once; returns whether all are delivered."""
        for key, entry in list(self._entries.items()):
            try:
                await self._api.report(
                    entry.report.job_id, entry.report.kind, bytes(entry.report.body)
                )
            except DaemonUnavailable as error:
                self._log.debug("report not delivered yet", job_id=key[0], reason=error)
                continue
            except Rejected as error:
                self._log.warning("report rejected", job_id=key[0], attempt=key[1], reason=error)
                if error.is_key_trouble:
                    continue
                if error.status in _CONTENTS_REFUSED and not entry.report.is_substitute:
                    entry.report = _substitute(entry.report, error)
                    await self._store(entry)
                    continue
            else:
                self._log.info(
                    "report delivered", job_id=key[0], attempt=key[1], kind=entry.report.kind
                )
            self._forget(key, entry)
        return not self._entries

    def _forget(self, key: tuple[str, int], entry: _Entry) -> None:
        entry.path.unlink(missing_ok=True)  # no sync: after a power cut it is sent again
        del self._entries[key]
        entry.done.set()

    def _load(self) -> None:
        """Read the reports of an earlier run; an unreadable file is put aside, not lost."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                report = msgspec.json.decode(path.read_bytes(), type=StoredReport)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                self._log.error("unreadable report moved aside", path=path, reason=error)
                path.rename(path.with_suffix(".unreadable"))
                continue
            self._entries[report.job_id, report.attempt] = _Entry(path, report, trio.Event())
        if self._entries:
            self._wake.set()


def _substitute(refused: StoredReport, error: Rejected) -> StoredReport:
    """Return a failure to send instead of a report whose contents the daemon refused.

    Its class is `input`: no other attempt would be reported otherwise.
    """
    sender = msgspec.json.decode(refused.body, type=_Sender)
    words = f"The daemon refused the report {refused.kind!r} of this attempt: {error}"
    failure = FailReport(words[:_WORDS_MAX], refused.attempt, sender.engine_id, FailureClass.INPUT)
    body = msgspec.Raw(msgspec.json.encode(failure))
    return StoredReport(refused.job_id, refused.attempt, "fail", body, is_substitute=True)
