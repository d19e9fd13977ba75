"""Log each request once it is over, and notify the observers.

Each request is one line at INFO to `distconvd.access`, with all values as fields for a JSON
formatter; the text alone is enough for a person: `POST /jobs/ 200 412 B 3 ms total`. It names the
path as it was sent, without its query, and the key's name, never the key.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from distconvd.edge.http import Request, Route

log = logging.getLogger("distconvd.access")
edge_log = logging.getLogger("distconvd.edge")

PATH_CHARS_MAX = 256
_LINE = "%s %s %d %d B %d ms total"
_LOGGINGS_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Exchange(NamedTuple):
    """One request and its reply, as an observer sees it.

    `method` and `path` are `-` when no request could be parsed; `route` is None then, and for an
    unknown path. `bytes_sent` includes the reply's head. Status 101 is an upgrade.
    """

    method: str
    path: str
    route: Route | None
    status: int
    bytes_sent: int
    duration_s: float
    peer: str
    request: Request | None


Observer = Callable[[Exchange], None]


def ids_of(request: Request) -> dict[str, object]:
    """Return the fields of a log line that say which request it is about.

    A handler's fields that are named like one of logging's own attributes are left out, because
    logging raises for them.
    """
    logged = {name: value for name, value in request.log.items() if name not in _LOGGINGS_OWN}
    return {**logged, "request_id": request.request_id}


def log_access(exchange: Exchange, request_id: str, observers: Iterable[Observer]) -> None:
    """Write the access line and call the observers; an observer's exception is only logged."""
    if log.isEnabledFor(logging.INFO):
        _write(exchange, request_id)
    for observer in observers:
        try:
            observer(exchange)
        except Exception:  # noqa: BLE001 - a plugin's fault must not break the reply; it is logged
            edge_log.exception("an observer of requests failed")


def _write(exchange: Exchange, request_id: str) -> None:
    duration_ms = round(exchange.duration_s * 1000, 3)
    path = exchange.path[:PATH_CHARS_MAX]
    args = (exchange.method, path, exchange.status, exchange.bytes_sent, duration_ms)
    # Not `log.info`: it walks the stack to find its caller, which is always this function, and it
    # raises when a handler's field is named like one of logging's own attributes.
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, _LINE, args, None, "log_access")
    attributes = vars(record)
    for name, value in _fields(exchange, path, duration_ms, request_id).items():
        attributes.setdefault(name, value)
    log.handle(record)


def _fields(
    exchange: Exchange, path: str, duration_ms: float, request_id: str
) -> Mapping[str, object]:
    request = exchange.request
    principal = request.principal if request is not None else None
    # A handler's fields come first, so that none of them can replace one of the edge's.
    return {
        **(request.log if request is not None else {}),
        "method": exchange.method,
        "path": path,
        "status": exchange.status,
        "bytes": exchange.bytes_sent,
        "duration_ms": duration_ms,
        "peer": exchange.peer,
        "key_name": principal.name if principal is not None else None,
        "request_id": request_id,
    }
