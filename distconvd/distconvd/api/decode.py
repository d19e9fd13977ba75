"""Decode request bodies and turn msgspec's errors into client messages.

msgspec checks the types and names the field. Its messages are replaced by the original's sentence
for that field, if there is one, or by a sentence in the same style.
"""

import json
import re
from typing import Any, TypeVar, cast

import msgspec

from distconvd.errors import BadRequest

T = TypeVar("T")

SENTENCES: dict[str, str] = {
    "source_url": "'source_url' is missing or not a string.",
    "target_codec": "'target_codec' is missing or not a string.",
    "job_size": "'job_size' must be a non-negative number.",
    "max_retries": "'max_retries' must be a non-negative integer.",
    "storage_capacity_gb": "'storage_capacity_gb' must be a non-negative number.",
    "streaming_support": "'streaming_support' must be a boolean.",
    "benchmark_time": "'benchmark_time' must be a non-negative number.",
    "output_url": "'output_url' must be a string.",
}
"""The original's sentences for a wrong or missing field; its README names the first four."""

_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

_PLACE = re.compile(r" - at `(?:key in )?\$(.*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_INDEX = re.compile(r"\[[^]]*\]")
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
        raise _bad_field(str(error)) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"Invalid JSON: it is not UTF-8 (byte {error.start}).") from error
    except msgspec.DecodeError as error:
        raise _bad_json(body, str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error


def decode_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object whose values may have any type."""
    return decode(body, dict[str, Any])


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
        raise _too_deep() from error


def _too_deep() -> BadRequest:
    return BadRequest("Invalid JSON: it is nested too deeply.")


def _bad_json(body: bytes, fault: str) -> BadRequest:
    """Return the error for invalid JSON; if the cause is a number such as NaN, it names the field."""
    found = _NON_FINITE.search(body)
    if found is None and _SURROGATE_ESCAPE.search(body) is not None:
        return _lone_surrogate(body, fault)
    if found is None:
        return BadRequest(f"Invalid JSON: {fault}.")
    field = found.group(1).decode()
    sentence = SENTENCES.get(field, f"'{field}' must be a number; JSON has no NaN or Infinity.")
    return BadRequest(sentence, field=field)


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


def _bad_field(message: str) -> BadRequest:
    place = _PLACE.search(message)
    # Name the field, not the entry in it: `labels` for `labels[...]`.
    path = _INDEX.sub("", place.group(1) if place else "").lstrip(".")
    fault = _PLACE.sub("", message)
    missing = _MISSING.search(fault)
    if missing:
        field = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return BadRequest(SENTENCES.get(field, f"'{field}' is missing."), field=field)
    if not path and "Expected `object`" in fault:
        return BadRequest(f"The body must be a JSON object: {_in_words(fault)}.")
    if not path:
        return BadRequest(f"Invalid JSON: {_in_words(fault)}.")
    return BadRequest(SENTENCES.get(path, f"'{path}': {_in_words(fault)}."), field=path)


def _in_words(fault: str) -> str:
    """Return msgspec's message with plain words for its types."""
    return re.sub(
        r"`([^`]+)`",
        lambda m: " or ".join(_WORDS.get(part, f"`{part}`") for part in m.group(1).split(" | ")),
        fault[:1].lower() + fault[1:],
    )
