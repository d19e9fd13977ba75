"""Express the checks of `api.validate` as JSON Schema, for the OpenAPI document.

They are keyed by field name: one name means the same in every message. A rule that no schema can
express (two fields that exclude each other) is described in words. tests/api/test_schemathesis.py
checks against a live daemon that schema and checks agree.
"""

from collections.abc import Mapping
from typing import Any

from distconvd.model import OPTION_RANGES, Limits

Schema = dict[str, Any]

_ID: Schema = {
    "minLength": 1,
    "maxLength": Limits.id_chars,
    "pattern": r"^[^\s/\x00-\x1f\x7f\x85]+$",  # \x85: a space in Python, not in ECMA-262
}
_WORD: Schema = {
    "minLength": 1,
    "maxLength": Limits.codec_chars,
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
}
_TAG: Schema = {**_ID, "maxLength": Limits.tag_chars}
_AMOUNT: Schema = {"minimum": 0, "maximum": 1e15}
_TIME: Schema = {"minimum": 0, "maximum": 2**53 - 1}
_SHORT: Schema = {"maxLength": 256}
_SECONDS: Schema = {"minimum": 0, "maximum": 1e9}
_BY_CODEC: Schema = {
    "maxProperties": Limits.codecs,
    "propertyNames": _WORD,
    "additionalProperties": {"type": "number", **_SECONDS},
}

FIELDS: Mapping[str, Schema] = {
    "source_url": {
        "maxLength": Limits.url_chars,
        "pattern": r"^(https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,3})?(/[!-Z^-~]*)?|file:///[!-Z^-~]*)$",
        "description": "An absolute URL; the schemes are a setting (`source_schemes`).",
    },
    "output_url": {"maxLength": Limits.url_chars},
    "target_codec": _WORD,
    "job_size": {"minimum": 0, "maximum": Limits.job_size_mb},
    "max_retries": {"minimum": 0, "maximum": Limits.max_retries},
    "priority": {"minimum": 0, "maximum": 2},
    "labels": {
        "maxProperties": Limits.labels,
        "propertyNames": {"minLength": 1, "maxLength": Limits.label_key_chars},
        "additionalProperties": {"type": "string", "maxLength": Limits.label_value_chars},
    },
    "requires": {"maxItems": Limits.tags, "items": {"type": "string", **_TAG}},
    "tags": {"maxItems": Limits.tags, "items": {"type": "string", **_TAG}},
    "source_sha256": {"pattern": "^[0-9a-fA-F]{64}$"},
    "not_before": _TIME,
    "engine_id": _ID,
    "engine_type": _SHORT,
    "status": _SHORT,
    "hostname": _SHORT,
    "version": _SHORT,
    "supported_codecs": {"maxItems": Limits.codecs, "items": {"type": "string", **_WORD}},
    "storage_capacity_gb": _AMOUNT,
    "benchmark_time": _SECONDS,
    "benchmarks": _BY_CODEC,
    "benchmark_fps": _BY_CODEC,
    "requested_at": _TIME,
    "slots": {"minimum": 1, "maximum": Limits.slots},
    "free_gb": _AMOUNT,
    "cpu_percent": _AMOUNT,
    "jobs": {"maxItems": Limits.held_jobs},
    "local_job_queue": {
        "maxItems": Limits.held_jobs,
        "items": {"type": "string", "maxLength": Limits.id_chars},
    },
    "job_id": {"maxLength": Limits.id_chars},
    "attempt": _TIME,
    "fraction": _AMOUNT,
    "fps": _AMOUNT,
    "speed": _AMOUNT,
    "eta_seconds": _AMOUNT,
    "phase": {"maxLength": 64},
    "preset": _WORD,
    "tune": _WORD,
    "url": {"maxLength": Limits.url_chars, "pattern": "^(file:///|https?://)"},
    "name": {"minLength": 1, "maxLength": 255, "pattern": r"^[^/\\\x00-\x1f]+$"},
    **{name: {"minimum": low, "maximum": high} for name, (low, high) in OPTION_RANGES.items()},
}
"""Bounds of the fields of request bodies, by field name."""

WORDS: Mapping[str, str] = {
    "TranscodeOptions": (
        "What the output should be like; an omitted field takes the codec's default. `crf` and"
        " `video_bitrate_kbps` cannot be combined, `two_pass` needs the latter, the container must"
        " support the codecs, and `faststart` is for mp4 and mov. `crf`, `preset`, `tune` and"
        " `two_pass` must suit the codec: docs/protocol.md has the table. For a codec that is not in"
        " the table, any values are accepted."
    ),
}
"""Rules that only words can express, by type."""

RESULT: Mapping[str, Schema] = {
    "integer": {"minimum": 0, "maximum": 2**53},
    "number": {"minimum": 0, "maximum": 2**53},
    "string": {"maxLength": Limits.result_chars},
    "array": {
        "maxItems": Limits.result_entries,
        "items": {"type": "string", "maxLength": Limits.result_chars},
    },
}
"""Bounds of the fields of a result, by type."""
