"""Every error that a caller may see, in one tree: whose fault it is, and its HTTP status.

The core raises these without knowing HTTP; the edge turns them into RFC 9457 problem documents.
"""

from collections.abc import Mapping


class DistconvError(Exception):
    """Base of all errors that are told to a caller.

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
    """No key, or a wrong one."""

    status = 401
    title = "Unauthorized"


class Forbidden(CallerError):
    """The key is good, but its role may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(CallerError):
    """No such job, engine or path."""

    status = 404
    title = "Not Found"


class MethodNotAllowed(CallerError):
    """The path exists, the method does not; carries `Allow`."""

    status = 405
    title = "Method Not Allowed"


class RequestTimeout(CallerError):
    """The caller took too long to send its head or body."""

    status = 408
    title = "Request Timeout"


class Conflict(CallerError):
    """The call contradicts what is on record; nothing changed."""

    status = 409
    title = "Conflict"


class PreconditionFailed(CallerError):
    """`If-Match` names a version that is not the present one."""

    status = 412
    title = "Precondition Failed"


class BodyTooLarge(CallerError):
    """The body is over the limit."""

    status = 413
    title = "Content Too Large"


class UnsupportedMediaType(CallerError):
    """The body is not of a type that this path takes."""

    status = 415
    title = "Unsupported Media Type"


class RangeNotSatisfiable(CallerError):
    """No byte of the asked range exists; carries `Content-Range` with the real size."""

    status = 416
    title = "Range Not Satisfiable"


class Unprocessable(CallerError):
    """An idempotency key was used again for a different request."""

    status = 422
    title = "Unprocessable Content"


class TooManyRequests(CallerError):
    """Over the rate limit; carries `Retry-After`."""

    status = 429
    title = "Too Many Requests"


class HeadTooLarge(CallerError):
    """The request head is over the limit."""

    status = 431
    title = "Request Header Fields Too Large"


class DaemonError(DistconvError):
    """Our fault or our disk's: the same call may succeed later."""


class PluginFailed(DaemonError):
    """A plugin that looked at the request raised what it should not, or answered nonsense."""


class Unavailable(DaemonError):
    """Not now: draining, over the connection limit, or the store cannot commit."""

    status = 503
    title = "Service Unavailable"

    def __init__(
        self, detail: str, *, retry_after_s: int = 1, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s), **(headers or {})})


class InsufficientStorage(DaemonError):
    """There is no room for what was sent."""

    status = 507
    title = "Insufficient Storage"


class CommitFailed(Unavailable):
    """The store could not make a change durable, so the change was taken back."""


class JobArchived(Exception):
    """Not a fault: what is asked for is in the archive, under this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class StoreError(Exception):
    """A store cannot be opened, read or written; never sent to a caller as it is."""


class StoreLocked(StoreError):
    """Another process holds the store."""


class StoreTooNew(StoreError):
    """The store was written by a newer format version than this one knows."""


class ConfigError(Exception):
    """The configuration is wrong; the daemon exits with `exit_code` and this message."""

    def __init__(self, message: str, *, exit_code: int = 78) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LifecycleError(Exception):
    """A bug: the dispatcher tried a move that is not in the table."""
