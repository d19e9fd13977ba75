"""Adapt Schemathesis to this API; loaded by Schemathesis, not by pytest.

JSON Schema accepts `3.0` as an integer and this API does not; `Prefer: wait=30` waits; a body of
NDJSON consists of lines; `?strict=true` rejects fields that the schema allows; and some options
contradict each other or do not suit the codec, which the document says only in words.
"""

import re
from collections.abc import Callable
from typing import Any

import schemathesis

from distconvd.model import CODECS, canonical_codec

LINE = b'{"source_url": "http://example.com/in.mp4", "target_codec": "h264"}'
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}\Z")
CONTAINERS = ("mp4", "mkv", "webm", "mov", "ts")


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) and value.startswith("{") else LINE


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    case.body = whole(case.body)
    if isinstance(case.body, dict) and isinstance(case.body.get("options"), dict):
        case.body["options"] = consistent(case.body["options"])
        if canonical_codec(str(case.body.get("target_codec"))) in CODECS:
            case.body["options"] = of_any_codec(case.body["options"])
    if case.headers:
        case.headers.pop("Prefer", None)
    if case.query:
        case.query.pop("strict", None)


def whole(value: Any) -> Any:
    """Write floats with an integer value as integers, up to the size that every parser accepts."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return value


def consistent(options: dict[str, Any]) -> dict[str, Any]:
    """Remove options that are valid on their own but contradict others; invalid values stay."""
    kept = dict(options)
    if kept.get("container") in CONTAINERS:
        del kept["container"]  # it must suit the codec
    if isinstance(kept.get("video_bitrate_kbps"), int):
        if isinstance(kept.get("crf"), int) and 0 <= kept["crf"] <= 63:
            del kept["crf"]
    elif kept.get("two_pass") is True:
        del kept["two_pass"]
    if kept.get("audio_codec") in ("copy", "none"):
        del kept["audio_codec"]  # neither has a bit rate to set
    return kept


def of_any_codec(options: dict[str, Any]) -> dict[str, Any]:
    """Remove options that are valid on their own but may not suit the codec; invalid values stay."""
    is_good: dict[str, Callable[[Any], object]] = {
        "crf": lambda value: type(value) is int and 0 <= value <= 63,
        "video_bitrate_kbps": lambda value: type(value) is int and 1 <= value <= 1_000_000,
        "preset": lambda value: isinstance(value, str) and WORD.match(value),
        "tune": lambda value: isinstance(value, str) and WORD.match(value),
        "two_pass": lambda value: isinstance(value, bool),
        "faststart": lambda value: isinstance(value, bool),
    }
    return {
        name: value
        for name, value in options.items()
        if name not in is_good or not is_good[name](value)
    }
