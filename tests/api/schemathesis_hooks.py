"""What Schemathesis has to know of this API; loaded by it, not by pytest.

JSON Schema takes `3.0` for an integer and this API does not; `Prefer: wait=30` waits; a body of
NDJSON is lines; `?strict=true` refuses what the schema allows by right; and some options contradict each other, which the document tells in words only.
"""

from typing import Any

import schemathesis

LINE = b'{"source_url": "http://example.com/in.mp4", "target_codec": "h264"}'
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
    if case.headers:
        case.headers.pop("Prefer", None)
    if case.query:
        case.query.pop("strict", None)


def whole(value: Any) -> Any:
    """Write integers as integers; only those of a size that every reader takes for one."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return value


def consistent(options: dict[str, Any]) -> dict[str, Any]:
    """Take out what is good by itself and contradicts the rest; bad values stay."""
    kept = dict(options)
    if kept.get("container") in CONTAINERS:
        del kept["container"]  # it has to suit the codec
    if isinstance(kept.get("video_bitrate_kbps"), int):
        if isinstance(kept.get("crf"), int) and 0 <= kept["crf"] <= 63:
            del kept["crf"]
    elif kept.get("two_pass") is True:
        del kept["two_pass"]
    if kept.get("audio_codec") in ("copy", "none"):
        del kept["audio_codec"]  # neither has a bit rate
    return kept
