"""Define who submits or reads jobs over the API, and which jobs that caller may see.

A job may do no more than the key that submitted it. An engine fetches sources from the media store with
its own key, so a job whose submitter may not read the store must not name it as its source: the daemon
refuses such a job where it recognizes its own address, and the engine refuses it in any case
(`Job.may_read_media`).

`read` and `admin` see every job, another key only those that it submitted. What it may not see is
answered like what does not exist. The secrets of a URL (`model.masking`) are shown to the key that
submitted them and to nobody else; an engine gets them with its assignment.
"""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from distconvd.dispatch.records import decode_job
from distconvd.dispatch.submit import Submitter
from distconvd.edge.http import Principal, Request
from distconvd.errors import Forbidden, NotFound
from distconvd.model import Job, mask_record, may_have_secrets

SEES_ALL = frozenset({"read", "admin"})


class Caller(NamedTuple):
    """Who submits jobs."""

    name: str
    may_read: bool
    host: str | None = None
    """The daemon's address as the caller knows it, with the port; None: no HTTP request."""

    @property
    def submitter(self) -> Submitter:
        """What is recorded with each job."""
        return Submitter(self.name, self.may_read)

    def check_source(self, url: str) -> None:
        """Raise `Forbidden` for a source in this daemon's media store that the caller may not read."""
        if not self.may_read and self.host is not None and _is_in_media_store(url, self.host):
            raise Forbidden(
                f"Key {self.name!r} does not have the role 'read', which reading the media store needs:"
                " its jobs cannot have a source there.",
                field="source_url",
            )


LOCAL = Caller("local", may_read=True)
"""The spool and the hot folders: who may write there is the operator's decision."""


def caller_of(request: Request) -> Caller:
    """Return who sent a request."""
    principal = request.principal
    if principal is None:
        return Caller("-", may_read=False)
    return Caller(principal.name, _sees_all(principal), request.headers.get("host"))


def require_visible(principal: Principal | None, job: Job) -> None:
    """Raise `NotFound` for a job that this caller may not see."""
    if principal is None or _sees_all(principal) or job.submitted_by == principal.name:
        return
    raise NotFound("Job not found")


def shown_job(principal: Principal | None, record: bytes) -> bytes:
    """Return a job as this caller may see it: the secrets of its URLs only if it gave them."""
    if not may_have_secrets(record):
        return record
    name = None if principal is None else principal.name
    return record if decode_job(record).submitted_by == name else mask_record(record)


def _sees_all(principal: Principal) -> bool:
    return bool(principal.roles & SEES_ALL)


def _is_in_media_store(url: str, host: str) -> bool:
    parts = urlsplit(url)
    authority = parts.netloc.rpartition("@")[2].lower()
    path = unquote(parts.path).removeprefix("/api/v1")
    return authority == host.lower() and path.startswith("/media/")
