"""Bodies to typed messages, and what to say of those that are none.

msgspec checks types and says where; here its words are turned into the original's sentences where
it has one, and into the same style where it has none.
"""

import re
from typing import Any, TypeVar

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
"""What the original says of a wrong or missing field; its README names the first four."""

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


def decode(body: bytes, kind: type[T]) -> T:
    """Return a JSON body as a message.

    Raises `BadRequest`: `Invalid JSON: …` for what is no JSON, or the name of the wrong field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Invalid JSON: {error}.") from error
    except RecursionError as error:
        raise BadRequest("Invalid JSON: it is nested too deeply.") from error


def decode_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object with the values of its fields undecided."""
    return decode(body, dict[str, Any])


def _bad_field(message: str) -> BadRequest:
    place = _PLACE.search(message)
    path = (place.group(1) if place else "").lstrip(".")
    fault = _PLACE.sub("", message)
    missing = _MISSING.search(fault)
    if missing:
        field = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return BadRequest(SENTENCES.get(field, f"'{field}' is missing."), field=field)
    if not path:
        return BadRequest(f"The body must be a JSON object: {_in_words(fault)}.")
    return BadRequest(SENTENCES.get(path, f"'{path}': {_in_words(fault)}."), field=path)


def _in_words(fault: str) -> str:
    """Return msgspec's complaint with plain words for its types."""
    return re.sub(
        r"`([^`]+)`",
        lambda m: " or ".join(_WORDS.get(part, f"`{part}`") for part in m.group(1).split(" | ")),
        fault[:1].lower() + fault[1:],
    )
