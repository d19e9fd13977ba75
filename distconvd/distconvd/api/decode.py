"""Decode request bodies and turn msgspec's errors into client messages.

msgspec checks the types with their bounds (`model.bounds`) and names the field. Its messages are
replaced by the original's sentence for that field, if there is one, or by a sentence in the same
style (`model.bound_words`).
"""

import json
import re
from typing import Any, TypeVar, cast

import msgspec

from distconvd.errors import BadRequest
from distconvd.model import explain, maybe_wrong_type

T = TypeVar("T")

_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

_NON_FINITE = re.compile(rb'"([a-z0-9_]{1,64})"\s*:\s*[-+]?(?:NaN|Infinity|inf|nan)\b')
"""What Python and JavaScript write for numbers that JSON does not have."""
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(body: bytes, kind: type[T]) -> T:
    """Return a JSON body as a message.

    Raises `BadRequest`: `Invalid JSON: …`, or a sentence that names the wrong field.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")  # msgspec checks only the strings that it decodes
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise bad_field(error, kind) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"Invalid JSON: it is not UTF-8 (byte {error.start}).") from error
    except msgspec.DecodeError as error:
        raise _bad_json(body, str(error), kind) from error
    except RecursionError as error:
        raise too_deep() from error


def decode_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object whose values may have any type."""
    return decode(body, dict[str, Any])


def too_deep() -> BadRequest:
    """Return the error for a body that is nested too deeply."""
    return BadRequest("Invalid JSON: it is nested too deeply.")


def _bad_json(body: bytes, fault: str, kind: Any) -> BadRequest:
    """Return the error for invalid JSON; if the cause is a number such as NaN, it names the field."""
    found = _NON_FINITE.search(body)
    if found is None and _SURROGATE_ESCAPE.search(body) is not None:
        return _lone_surrogate(body, fault)
    if found is None:
        return BadRequest(f"Invalid JSON: {fault}.")
    field = found.group(1).decode()
    words = maybe_wrong_type(kind, field) or "must be a number; JSON has no NaN or Infinity"
    return BadRequest(f"'{field}' {words}.", field=field)


def _lone_surrogate(body: bytes, fault: str) -> BadRequest:
    """Return the error for half of a surrogate pair, naming the field that contains it."""
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        return BadRequest(f"Invalid JSON: {fault}.")
    fields = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    for name, value in fields.items():
        if _SURROGATE.search(json.dumps([name, value], ensure_ascii=False)):
            field = name.encode("utf-8", "replace").decode()
            sentence = f"'{field}' contains half of a surrogate pair (\\ud800 to \\udfff)."
            return BadRequest(sentence, field=field)
    return BadRequest(f"Invalid JSON: {fault}.")


def bad_field(error: msgspec.ValidationError, kind: Any, field: str = "") -> BadRequest:
    """Return the error for a value that is not of its type or out of its bounds.

    Args:
        error: what msgspec says of it.
        kind: what the value should have been.
        field: the name of the value, if it is not a whole body.
    """
    fault = explain(error, kind)
    field = fault.field or field
    words = fault.bound or fault.wrong_type
    if words is None and fault.is_missing:
        words = "is missing"
    if field and words is not None:
        return BadRequest(f"'{field}' {words}.", field=field)
    message = _in_words(fault.message)
    if field:
        return BadRequest(f"'{field}': {message}.", field=field)
    if "Expected `object`" in fault.message:
        return BadRequest(f"The body must be a JSON object: {message}.")
    return BadRequest(f"Invalid JSON: {message}.")


def _in_words(fault: str) -> str:
    """Return msgspec's message with plain words for its types."""
    return re.sub(
        r"`([^`]+)`",
        lambda m: " or ".join(_WORDS.get(part, f"`{part}`") for part in m.group(1).split(" | ")),
        fault[:1].lower() + fault[1:],
    )
