"""Turn errors into problem documents (RFC 9457).

The `type` is a stable URN made from the error's class, so that a program can tell two 503s apart
without reading English; the `title` belongs to the status; the `detail` is for the person.
"""

import json
import re
from functools import cache

from distconvd.edge.http import Response
from distconvd.errors import CallerError, DistconvError

CONTENT_TYPE = "application/problem+json"


class NotImplementedHere(CallerError):
    """The head asks for an unsupported feature of HTTP, such as another transfer coding."""

    status = 501
    title = "Not Implemented"


class VersionNotSupported(CallerError):
    """The request line names a version of HTTP other than 1.x."""

    status = 505
    title = "HTTP Version Not Supported"


class Crash(DistconvError):
    """A handler raised an unexpected exception: our bug, reported without its details."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "The daemon failed on this request because of an internal error, and may not"
            f" have carried it out. Its log has the details under request id {request_id}."
        )


@cache
def _urn(class_name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()
    return f"urn:distconv:problem:{words}"


def type_of(error: type[DistconvError]) -> str:
    """Return the URN of an error class: `BodyTooLarge` is `urn:distconv:problem:body-too-large`."""
    return _urn(error.__name__)


def document_of(error: DistconvError) -> dict[str, object]:
    """Return the members that describe an error on any transport, in reading order."""
    document: dict[str, object] = {
        "type": type_of(type(error)),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.field is not None:
        document["field"] = error.field
    return document


def problem(error: DistconvError, request_id: str) -> Response:
    """Turn an error into the reply that describes it."""
    document = document_of(error) | {"request_id": request_id}
    # ASCII only: a detail may quote any text that a caller sent, even lone surrogates.
    body = json.dumps(document).encode("ascii") + b"\n"
    return Response(error.status, body, CONTENT_TYPE, error.headers)
