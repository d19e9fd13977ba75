"""Define what can go wrong between a caller and the daemon, in one exception tree.

Each error takes at most two lines: what was wrong and where, then what to do next (`hint`). The
class says whose fault it is: the network's (`DaemonUnreachable`), the caller's or the daemon's
(`Refused`, with the daemon's own sentence), or that of a server other than a DistConv daemon
(`UnexpectedReply`).
"""


class ClientError(Exception):
    """Base of all errors of this package.

    Args:
        message: one sentence: what was wrong, and where.
        hint: what to do next; empty when the message suffices.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(ClientError):
    """The caller's input is wrong and nothing was sent; the command line exits 2 for it."""


class DaemonUnreachable(ClientError):
    """No reply: nothing listens there, the network failed, or the daemon took too long."""


class UnexpectedReply(ClientError):
    """A reply came, but not one that a DistConv daemon of this version sends."""


class StillRunning(ClientError):
    """`Client.wait` ran out of time; the job continues."""


class Refused(ClientError):
    """The daemon answered with an error.

    Args:
        status: the HTTP status.
        title: its short name.
        detail: the daemon's sentence for a person.
        field: the name of the wrong field, if there is one.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, field: str | None = None, hint: str = ""
    ) -> None:
        where = f" (field {field})" if field and field not in detail else ""
        super().__init__(f"{detail or title}{where} [HTTP {status}]", hint=hint)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field


class Unauthorized(Refused):
    """No key, a wrong key, or one whose role may not do this (401, 403)."""


class NotFound(Refused):
    """The job, engine or path does not exist (404)."""


class Conflict(Refused):
    """The job's or engine's state does not allow it; nothing changed (409)."""


REFUSALS: dict[int, type[Refused]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
}
"""The class of each HTTP status that callers may want to distinguish; any other is `Refused`."""
