"""Find the fields of a body that its message does not have, and names that it has twice."""

import json
import logging
from typing import Any, get_type_hints

import msgspec

from distconvd.api.decode import too_deep
from distconvd.errors import BadRequest
from distconvd.model import Limits, Output, Submission, TranscodeOptions

log = logging.getLogger("distconvd.known_fields")


def check_known_fields(fields: dict[str, Any], kind: type[Any] = Submission, at: str = "") -> None:
    """Raise `BadRequest` for the first field that `kind` does not have (`?strict=true`)."""
    hints = get_type_hints(kind)
    for name, value in fields.items():
        if name not in hints:
            known = ", ".join(hints)
            raise BadRequest(
                f"'{at}{name}' is not accepted; accepted fields: {known}.", field=at + name
            )
        for inner in (TranscodeOptions, Output):
            if isinstance(value, dict) and inner.__name__ in str(hints[name]):
                check_known_fields(value, inner, f"{at}{name}.")  # pyright: ignore[reportUnknownArgumentType] - any JSON object


def check_no_duplicates(body: bytes) -> None:
    """Raise `BadRequest` for an object, at any depth, that has the same name twice.

    Only `?strict=true` asks for this check: by default the last value counts, as with most JSON
    decoders.
    """

    def refuse(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadRequest(f"'{name}' is given more than once.", field=name)
            seen.add(name)
        return {}

    try:
        json.loads(body, object_pairs_hook=refuse)
    except RecursionError as error:
        raise too_deep() from error


def unknown_fields(body: bytes, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields of a JSON object that `kind` does not have, up to a total size.

    They are only shown to people, so one that cannot be decoded is left out without an error.
    """
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    kept: dict[str, Any] = {}
    left = Limits.extra_bytes
    for name, value in raw.items():
        if name not in kind.__struct_fields__:
            left -= len(name) + len(bytes(value))
            if left < 0:
                break
            try:
                kept[name] = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError) as error:
                log.debug("unknown field %r cannot be decoded and is left out: %s", name, error)
    return kept
