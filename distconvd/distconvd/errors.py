"""Define every error that a caller may see, in one tree, with its fault and HTTP status.

The core raises these without knowing HTTP; the edge turns them into RFC 9457 problem documents.
"""

from collections.abc import Mapping


class DistconvError(Exception):
    """Base of all errors that are reported to a caller.

    Args:
        detail: one sentence for the person who made the call: what, where, what to do.
        field: the name of the offending field, for bad input.
        headers: extra reply headers, such as `Retry-After`.
    """

    status = 500
    title = "Internal Server Error"

    def __init__(
        self, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})


class CallerError(DistconvError):
    """The caller's fault: the same call will fail again."""

    status = 400
    title = "Bad Request"


class BadRequest(CallerError):
    """The request is malformed or a field is wrong."""


class Unauthorized(CallerError):
    """The key is missing or wrong."""

    status = 401
    title = "Unauthorized"


class Forbidden(CallerError):
    """The key is good, but its role may not do this."""

    status = 403
    title = "Forbidden"


class NotAssigned(Forbidden):
    """An engine reports on a job that is not assigned to it and never was."""


class NotFound(CallerError):
    """The job, engine or path does not exist."""

    status = 404
    title = "Not Found"


class MethodNotAllowed(CallerError):
    """The path exists, but does not accept this method; carries `Allow`."""

    status = 405
    title = "Method Not Allowed"


class RequestTimeout(CallerError):
    """The caller took too long to send the request's head or body."""

    status = 408
    title = "Request Timeout"


class Conflict(CallerError):
    """The call contradicts what is on record; nothing changed."""

    status = 409
    title = "Conflict"


class PreconditionFailed(CallerError):
    """`If-Match` does not name the current version."""

    status = 412
    title = "Precondition Failed"


class BodyTooLarge(CallerError):
    """The body is over the limit."""

    status = 413
    title = "Content Too Large"


class UnsupportedMediaType(CallerError):
    """The body's type is not one that this path accepts."""

    status = 415
    title = "Unsupported Media Type"


class RangeNotSatisfiable(CallerError):
    """The requested range is outside the file; carries `Content-Range` with the real size."""

    status = 416
    title = "Range Not Satisfiable"


class Unprocessable(CallerError):
    """An idempotency key was used again for a different request."""

    status = 422
    title = "Unprocessable Content"


class TooManyRequests(CallerError):
    """The caller is over the rate limit; carries `Retry-After`."""

    status = 429
    title = "Too Many Requests"


class HeadTooLarge(CallerError):
    """The request head is over the limit."""

    status = 431
    title = "Request Header Fields Too Large"


class DaemonError(DistconvError):
    """The daemon's or its disk's fault: the same call may succeed later."""


class PluginFailed(DaemonError):
    """A plugin that handled the request failed, or returned an invalid value."""


class Unavailable(DaemonError):
    """Not possible now: the daemon drains, is over a limit, or cannot commit."""

    status = 503
    title = "Service Unavailable"

    def __init__(
        self, detail: str, *, retry_after_s: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s), **(headers or {})})


class InsufficientStorage(DaemonError):
    """The disk has no space for what was sent."""

    status = 507
    title = "Insufficient Storage"


class CommitFailed(Unavailable):
    """The store could not make a change durable, so the change was rolled back."""


class JobArchived(Exception):
    """Not a failure: the job is in the archive, under this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class StoreError(Exception):
    """A store cannot be opened, read or written; never sent to a caller unchanged."""


class StoreLocked(StoreError):
    """Another process has locked the store."""


class StoreTooNew(StoreError):
    """The store was written in a newer format than this version can read."""


class ConfigError(Exception):
    """The configuration is invalid; the daemon exits with `exit_code` and this message."""

    def __init__(self, message: str, *, exit_code: int = 78) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LifecycleError(Exception):
    """A bug: the dispatcher tried a transition that is not in the lifecycle table."""
