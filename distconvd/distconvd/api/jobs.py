"""Serve the resource `jobs`: what clients do with jobs, and what engines report about them."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import get_args

import msgspec
import trio

from distconvd.api.admission import Admission, find_job, require_archived
from distconvd.api.batch import CONTENT_TYPE as NDJSON
from distconvd.api.batch import Batch
from distconvd.api.caller import caller_of, require_visible, shown_job
from distconvd.api.decode import decode
from distconvd.api.openapi import jobs as docs
from distconvd.api.openapi.jobs import PAGE_MAX, Order
from distconvd.api.replies import (
    array_of,
    count_of,
    encoded,
    etag_matches_strong,
    etag_of,
    flag_of,
    job_reply,
    json_reply,
    names_version,
    wait_s_of,
)
from distconvd.api.reporting import ReportName, Sender, apply_report, read_report
from distconvd.api.waiting import wait_while_authorized
from distconvd.auth import require_engine
from distconvd.core.archive import Archive
from distconvd.core.event_bus import EventBus
from distconvd.core.ledger import Ledger
from distconvd.dispatch import submit
from distconvd.dispatch.queries import JobFilter, Page, attempts, list_jobs
from distconvd.dispatch.records import decode_job
from distconvd.dispatch.transaction import Transaction
from distconvd.dispatch.why import why, why_ended
from distconvd.edge.doc import Doc
from distconvd.edge.http import Request, Response, Route
from distconvd.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from distconvd.model import TERMINAL_STATUSES, JobPatch, JobStatus, mask_record

STREAM_PAGE = 500
"""Jobs per piece while a whole listing is streamed."""

_REPORT_ROUTES: tuple[tuple[ReportName, str, Doc], ...] = (
    ("complete", "Mark a job complete", docs.COMPLETE),
    ("fail", "Report a job failure", docs.FAIL),
    ("release", "Release a job", docs.RELEASE),
    ("progress", "Report progress", docs.PROGRESS),
)


class JobsApi:
    """Handlers of `/jobs/…`."""

    def __init__(
        self, ledger: Ledger, event_bus: EventBus, admission: Admission, archive: Archive | None
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._event_bus = event_bus
        self._admission = admission
        self._batch = Batch(ledger, admission)

    def routes(self) -> list[Route]:
        """Return the rows of the route table."""
        job = "/jobs/{job_id}"
        both = ("application/json", NDJSON)
        return [
            Route(
                "POST", "/jobs", self.submit, "submit", "whole", content_types=both,
                summary="Submit a job, or several", doc=docs.SUBMIT,
            ),
            Route("GET", "/jobs", self.list, "read", summary="List jobs", doc=docs.LIST),
            Route("GET", job, self.get, "read", summary="Get a job", doc=docs.GET),
            Route(
                "PATCH", job, self.patch, "submit", "whole",
                summary="Change a job", doc=docs.PATCH,
            ),
            Route("DELETE", job, self.cancel, "submit", summary="Cancel a job", doc=docs.CANCEL),
            Route(
                "POST", f"{job}/retry", self.retry, "submit",
                summary="Retry a job", doc=docs.RETRY,
            ),
            Route(
                "GET", f"{job}/attempts", self.attempts, "read",
                summary="List a job's attempts", doc=docs.ATTEMPTS,
            ),
            Route("GET", f"{job}/why", self.why, "read", summary="Explain why a job waits", doc=docs.WHY),
            *(
                Route(
                    "POST", f"{job}/{name}", partial(self.report, name), "engine", "whole",
                    summary=summary, doc=doc,
                )
                for name, summary, doc in _REPORT_ROUTES
            ),
        ]  # fmt: skip

    async def submit(self, request: Request) -> Response:
        """`POST /jobs/`: one job as JSON, or several as NDJSON."""
        caller = caller_of(request)
        key = request.headers.get("idempotency-key")
        strict = flag_of(request.query, "strict")
        dry_run = flag_of(request.query, "dry_run")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == NDJSON:
            atomic = flag_of(request.query, "atomic")
            answers = await self._batch.admit(
                request.body, caller, key=key, strict=strict, dry_run=dry_run, atomic=atomic
            )
            return Response(200, answers, NDJSON)
        record = await self._admission.admit(
            request.body, caller, key=key, strict=strict, dry_run=dry_run
        )
        request.log["job_id"] = decode_job(record).job_id
        return job_reply(record)

    async def list(self, request: Request) -> Response:
        """`GET /jobs/`: one page with `limit`, else a stream of everything; oldest or newest first."""
        which = _filter_of(request)
        limit = count_of(request.query, "limit", PAGE_MAX)
        newest_first = _is_newest_first(request)
        page = await self._ledger.execute(
            list_jobs, which, limit or STREAM_PAGE, request.query.get("cursor"),
            newest_first=newest_first,
        )  # fmt: skip
        if limit is None and page.next_cursor is not None:
            body = self._stream(request, which, page, newest_first=newest_first)
            return Response(200, body)
        headers: dict[str, str] = {}
        if page.next_cursor is not None:
            headers["X-Next-Cursor"] = page.next_cursor
        shown = [shown_job(request.principal, record) for record in page.records]
        return json_reply(array_of(shown), headers=headers)

    async def get(self, request: Request) -> Response:
        """`GET /jobs/{id}`; with `Prefer: wait=N` it waits until the job has changed or ended."""
        job_id = _job_id(request)
        known = request.headers.get("if-none-match")
        deadline_s = trio.current_time() + wait_s_of(request.headers)
        while True:
            with self._event_bus.expect("job", job_id) as change:
                record = await find_job(self._ledger, self._archive, job_id)
                record = shown_job(request.principal, record)
                left_s = deadline_s - trio.current_time()
                if left_s <= 0 or _is_news(record, known):
                    break
                await wait_while_authorized(request, change, left_s)
                if not change.is_set():
                    break
        if known is not None and names_version(known, etag_of(record)):
            return Response(304, headers={"ETag": etag_of(record)})
        return job_reply(record)

    async def patch(self, request: Request) -> Response:
        """`PATCH /jobs/{id}`."""
        change = decode(request.body, JobPatch)
        return await self._edit(request, lambda tx, job_id: submit.patch(tx, job_id, change))

    async def cancel(self, request: Request) -> Response:
        """`DELETE /jobs/{id}`."""
        return await self._edit(request, submit.cancel)

    async def retry(self, request: Request) -> Response:
        """`POST /jobs/{id}/retry`."""
        return await self._edit(request, submit.restart)

    async def attempts(self, request: Request) -> Response:
        """`GET /jobs/{id}/attempts`."""
        job_id = _job_id(request)
        try:
            found = await self._ledger.execute(attempts, job_id)
        except NotFound:
            found = (await require_archived(self._archive, job_id)).attempts
        return json_reply(mask_record(msgspec.json.encode(found)))

    async def why(self, request: Request) -> Response:
        """`GET /jobs/{id}/why`."""
        job_id = _job_id(request)
        try:
            found = await self._ledger.execute(why, job_id)
        except NotFound:
            job = decode_job((await require_archived(self._archive, job_id)).job)
            found = why_ended(job, is_archived=True)
        return json_reply(mask_record(msgspec.json.encode(found)))

    async def report(self, name: ReportName, request: Request) -> Response:
        """`POST /jobs/{id}/complete`, `fail`, `release` or `progress`."""
        sender = _sender_of(request)
        report = read_report(name, request.body, sender)
        request.log["attempt"] = report.attempt
        return encoded(await apply_report(self._ledger, name, _job_id(request), report, sender))

    async def _edit(self, request: Request, edit: Callable[[Transaction, str], bytes]) -> Response:
        """Change a job, provided that `If-Match` names its present version."""
        job_id = _job_id(request)
        expected = request.headers.get("if-match", "*")

        def command(tx: Transaction) -> bytes:
            require_visible(request.principal, tx.job(job_id))
            version = etag_of(shown_job(request.principal, tx.job_view(job_id)))
            if not etag_matches_strong(expected, version):
                raise PreconditionFailed(
                    "The job has changed: If-Match does not name its current version;"
                    " fetch the job again."
                )
            return edit(tx, job_id)

        try:
            record = await self._ledger.execute(command)
        except NotFound:
            job = decode_job((await require_archived(self._archive, job_id)).job)
            require_visible(request.principal, job)
            raise Conflict(
                f"Job is {job.status} and has been archived, so it cannot be changed; "
                "submit it again to repeat it."
            ) from None
        return job_reply(shown_job(request.principal, record))

    async def _stream(
        self, request: Request, which: JobFilter, page: Page, *, newest_first: bool
    ) -> AsyncIterator[bytes]:
        """Yield a whole listing as one JSON array, page by page."""
        opening = b"["
        while True:
            if page.records:
                shown = [shown_job(request.principal, record) for record in page.records]
                yield opening + b",".join(shown)
                opening = b","
            if page.next_cursor is None:
                break
            page = await self._ledger.execute(
                list_jobs, which, STREAM_PAGE, page.next_cursor, newest_first=newest_first
            )
        yield b"[]" if opening == b"[" else b"]"


def _job_id(request: Request) -> str:
    job_id = request.params["job_id"]
    request.log["job_id"] = job_id
    return job_id


def _sender_of(request: Request) -> Sender:
    """Return the engine that the key belongs to, if it is for one engine only."""
    principal = request.principal
    show = partial(shown_job, principal)
    if principal is None or principal.engine is None:
        return Sender(show=show)
    return Sender(principal.engine, True, partial(require_engine, principal), show)


def _is_news(record: bytes, known: str | None) -> bool:
    """Whether a waiting caller should be answered: the version is new to it, or the job has ended."""
    if known is not None:
        return not names_version(known, etag_of(record))
    return decode_job(record).status in TERMINAL_STATUSES


def _is_newest_first(request: Request) -> bool:
    """Whether a listing begins with the newest job; raises `BadRequest`."""
    order = request.query.get("order", "asc")
    if order not in get_args(Order):
        raise BadRequest(
            "'order' must be asc (oldest first) or desc (newest first).", field="order"
        )
    return order == "desc"


def _filter_of(request: Request) -> JobFilter:
    """Return the filter that the query describes; raises `BadRequest`."""
    query = request.query
    status = query.get("status")
    if status is not None and status not in set(JobStatus):
        raise BadRequest(f"'status' must be one of {', '.join(JobStatus)}.", field="status")
    label = query.get("label")
    pair: tuple[str, str] | None = None
    if label is not None:
        key, colon, value = label.partition(":")
        if not colon:
            raise BadRequest("'label' must have the form NAME:VALUE.", field="label")
        pair = (key, value)
    return JobFilter(
        status=JobStatus(status) if status is not None else None,
        engine=query.get("engine"),
        codec=query.get("codec"),
        label=pair,
    )
