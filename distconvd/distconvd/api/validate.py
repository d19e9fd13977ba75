"""Check what the types of a message cannot express: ranges, shapes and combinations.

Each error names the field. The same checks apply to HTTP, websockets and the spool.
"""

import logging
import math
import re
from typing import Any, cast, get_type_hints
from urllib.parse import urlsplit

import msgspec

from distconvd.errors import BadRequest
from distconvd.model import (
    ID_RULE,
    BenchmarkReport,
    CompleteReport,
    FailReport,
    Heartbeat,
    HeldJob,
    JobPatch,
    JobResult,
    Limits,
    Output,
    Progress,
    ProgressReport,
    ReleaseReport,
    Submission,
    TranscodeOptions,
    canonical_codec,
    find_fault,
    is_id,
    is_word,
)

log = logging.getLogger("distconvd.validate")

_CODEC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


def check_submission(job: Submission, schemes: list[str]) -> None:
    """Raise `BadRequest` for an invalid job; `schemes` are those allowed for sources."""
    check_url(job.source_url, "source_url", schemes)
    check_codec(job.target_codec, "target_codec")
    check_number(job.job_size, "job_size", Limits.job_size_mb)
    if not 0 <= job.max_retries <= Limits.max_retries:
        raise BadRequest(
            "'max_retries' must be a non-negative integer."
            if job.max_retries < 0
            else f"'max_retries' must be at most {Limits.max_retries}.",
            field="max_retries",
        )
    check_priority(job.priority)
    check_labels(job.labels)
    check_tags(job.requires, "requires")
    check_time(job.not_before, "not_before")
    if job.source_sha256 is not None and not _SHA256.match(job.source_sha256):
        raise BadRequest("'source_sha256' must be 64 hexadecimal digits.", field="source_sha256")
    if job.output is not None:
        check_output(job.output)
    check_options(job.options, canonical_codec(job.target_codec), job.output)


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


def check_patch(patch: JobPatch) -> None:
    """Raise `BadRequest` for an invalid change."""
    if isinstance(patch.priority, int):
        check_priority(patch.priority)
    if isinstance(patch.labels, dict):
        check_labels(patch.labels)
    if isinstance(patch.not_before, int):
        check_time(patch.not_before, "not_before")


def check_heartbeat(beat: Heartbeat) -> None:
    """Raise `BadRequest` for an invalid heartbeat."""
    check_id(beat.engine_id, "engine_id")
    for name in ("storage_capacity_gb", "free_gb", "cpu_percent"):
        value = getattr(beat, name)
        if isinstance(value, int | float):
            check_number(value, name, 1e15)
    if isinstance(beat.benchmark_time, int | float):
        check_number(beat.benchmark_time, "benchmark_time", 1e9)
    if isinstance(beat.temperature_c, float) and not math.isfinite(beat.temperature_c):
        raise BadRequest("'temperature_c' must be a number.", field="temperature_c")
    if isinstance(beat.supported_codecs, list):
        _check_count(beat.supported_codecs, "supported_codecs", Limits.codecs)
        for codec in beat.supported_codecs:
            check_codec(codec, "supported_codecs")
    if isinstance(beat.benchmarks, dict):
        check_benchmarks(beat.benchmarks)
    if isinstance(beat.benchmark_fps, dict):
        check_benchmarks(beat.benchmark_fps, "benchmark_fps")
    if isinstance(beat.tags, list):
        check_tags(beat.tags, "tags")
    if isinstance(beat.slots, int) and not 1 <= beat.slots <= Limits.slots:
        raise BadRequest(f"'slots' must be from 1 to {Limits.slots}.", field="slots")
    for name in ("engine_type", "status", "hostname", "version"):
        value = getattr(beat, name)
        if isinstance(value, str):
            _check_text(value, name, 256)
    if isinstance(beat.jobs, list):
        _check_count(beat.jobs, "jobs", Limits.held_jobs)
        _check_active(beat.jobs)
    if isinstance(beat.local_job_queue, list):
        _check_count(beat.local_job_queue, "local_job_queue", Limits.held_jobs)
        for job_id in beat.local_job_queue:
            _check_text(job_id, "local_job_queue", Limits.id_chars)


def check_benchmark(report: BenchmarkReport) -> None:
    """Raise `BadRequest` for an invalid benchmark."""
    check_id(report.engine_id, "engine_id")
    check_number(report.benchmark_time, "benchmark_time", 1e9)
    check_benchmarks(report.benchmarks)
    check_time(report.requested_at, "requested_at")


def check_benchmarks(benchmarks: dict[str, float], field: str = "benchmarks") -> None:
    """Raise `BadRequest` unless each codec has a finite number of seconds or frames per second."""
    _check_count(benchmarks, field, Limits.codecs)
    for codec, figure in benchmarks.items():
        check_codec(codec, field)
        check_number(figure, field, 1e9)


def check_complete(report: CompleteReport) -> None:
    """Raise `BadRequest` for an invalid completion."""
    _check_sender(report.attempt, report.engine_id)
    _check_text(report.output_url, "output_url", Limits.url_chars)
    if report.result is not None:
        for name in JobResult.__struct_fields__:
            _check_result(name, getattr(report.result, name))


def check_fail(report: FailReport) -> None:
    """Raise `BadRequest` for an invalid failure; a long message is truncated later, not rejected."""
    _check_sender(report.attempt, report.engine_id)


def check_release(report: ReleaseReport) -> None:
    """Raise `BadRequest` for an invalid release."""
    _check_sender(report.attempt, report.engine_id)


def check_progress(report: ProgressReport) -> None:
    """Raise `BadRequest` for invalid progress."""
    _check_sender(report.attempt, report.engine_id)
    for name in ("fraction", "fps", "speed", "eta_seconds"):
        value = getattr(report, name)
        if value is not None:
            check_number(value, name, 1e15)
    _check_text(report.phase, "phase", 64)


def check_url(url: str, field: str, schemes: list[str]) -> None:
    """Raise `BadRequest` unless this is an absolute URL with an allowed scheme."""
    if len(url) > Limits.url_chars:
        raise BadRequest(f"'{field}' is longer than {Limits.url_chars} characters.", field=field)
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) if parts.scheme != "file" else parts.path.startswith("/")
        _ = parts.port
    except ValueError as error:
        raise BadRequest(f"'{field}' is not a URL: {error}.", field=field) from error
    if " " in url or not url.isprintable():
        raise BadRequest(
            f"'{field}' contains spaces or control characters; percent-encode them.", field=field
        )
    if parts.scheme not in schemes or not is_whole:
        raise BadRequest(
            f"'{field}' must be an absolute URL with one of the schemes {', '.join(schemes)},"
            " for example http://host/video.mp4 or file:///videos/in.mp4.",
            field=field,
        )


def check_id(value: str, field: str) -> None:
    """Raise `BadRequest` unless this can be an id: no space, slash or control character."""
    if not is_id(value):
        raise BadRequest(f"'{field}' {ID_RULE}", field=field)


def check_codec(value: str, field: str) -> None:
    """Raise `BadRequest` unless this looks like the name of a codec: one short word."""
    if len(value) > Limits.codec_chars or not _CODEC.match(value):
        raise BadRequest(
            f"'{field}' must be one word of at most {Limits.codec_chars} characters (letters,"
            " digits, '.', '_', '+', '-'), such as h264, h265, vp9 or av1.",
            field=field,
        )


def check_number(value: float, field: str, most: float) -> None:
    """Raise `BadRequest` unless this is a finite number from 0 to `most`."""
    if not math.isfinite(value) or value < 0:
        raise BadRequest(f"'{field}' must be a non-negative number.", field=field)
    if value > most:
        raise BadRequest(f"'{field}' must be at most {most:g}.", field=field)


def check_priority(value: int) -> None:
    """Raise `BadRequest` unless this is a priority."""
    if value not in (0, 1, 2):
        raise BadRequest("'priority' must be 0 (normal), 1 (high) or 2 (urgent).", field="priority")


def check_labels(labels: dict[str, str]) -> None:
    """Raise `BadRequest` for labels out of bounds."""
    _check_count(labels, "labels", Limits.labels)
    for key, value in labels.items():
        if not 0 < len(key) <= Limits.label_key_chars:
            raise BadRequest(
                f"A label's name must have 1 to {Limits.label_key_chars} characters.",
                field="labels",
            )
        _check_text(value, "labels", Limits.label_value_chars)


def check_tags(tags: list[str], field: str) -> None:
    """Raise `BadRequest` for tags out of bounds."""
    _check_count(tags, field, Limits.tags)
    for tag in tags:
        if len(tag) > Limits.tag_chars or not is_word(tag):
            raise BadRequest(
                f"'{field}' must be a list of words of 1 to {Limits.tag_chars} characters without spaces.",
                field=field,
            )


def check_time(value: int | None, field: str) -> None:
    """Raise `BadRequest` unless this is a time in ms since the epoch."""
    if value is not None and not 0 <= value < 2**53:
        raise BadRequest(f"'{field}' must be milliseconds since the epoch.", field=field)


def check_options(options: TranscodeOptions, codec: str, output: Output | None = None) -> None:
    """Raise `BadRequest` for options that cannot work; `output`'s file name may imply a container."""
    for name in ("preset", "tune"):
        value = getattr(options, name)
        if value is not None and (len(value) > Limits.codec_chars or not _CODEC.match(value)):
            field = f"options.{name}"
            raise BadRequest(f"'{field}' must be one short word.", field=field)
    fault = find_fault(options, codec, output)
    if fault is not None:
        raise BadRequest(str(fault), field=fault.field)


def check_output(output: Output) -> None:
    """Raise `BadRequest` for an invalid output target."""
    if output.url is not None:
        check_url(output.url, "output.url", ["file", "http", "https"])
    name = output.name
    if name is None:
        return
    is_plain = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    if not is_plain or not name.isprintable() or len(name.encode("utf-8", "replace")) > 255:
        raise BadRequest(
            "'output.name' must be a file name of at most 255 bytes, without a directory.",
            field="output.name",
        )


def _check_count(items: list[Any] | dict[str, Any], field: str, most: int) -> None:
    if len(items) > most:
        raise BadRequest(f"'{field}' has more than {most} entries.", field=field)


def _check_text(value: str, field: str, most: int) -> None:
    if len(value) > most:
        raise BadRequest(f"'{field}' is longer than {most} characters.", field=field)


def _check_active(jobs: list[HeldJob]) -> None:
    for active in jobs:
        _check_text(active.job_id, "jobs", Limits.id_chars)
        _check_count_of(active.attempt, "jobs.attempt")
        if active.progress is not None:
            _check_text(active.progress.phase, "jobs.progress.phase", 64)
            for name in Progress.__struct_fields__:
                value = getattr(active.progress, name)
                if isinstance(value, float):
                    check_number(value, f"jobs.progress.{name}", 1e15)


def _check_sender(attempt: int | None, engine_id: str | None) -> None:
    """Check the fields that identify the sender of a report."""
    _check_count_of(attempt, "attempt")
    if engine_id is not None:
        check_id(engine_id, "engine_id")


def _check_count_of(value: int | None, field: str) -> None:
    if value is not None and not 0 <= value < 2**53:
        raise BadRequest(f"'{field}' must be a non-negative integer.", field=field)


def _check_result(name: str, value: object) -> None:
    """Check one field of a result, so that no record exceeds its bounds."""
    field = f"result.{name}"
    if isinstance(value, int | float):
        check_number(value, field, 2**53)
    elif isinstance(value, str):
        _check_text(value, field, Limits.result_chars)
    elif isinstance(value, list):
        texts = cast("list[str]", value)
        _check_count(texts, field, Limits.result_entries)
        for text in texts:
            _check_text(text, field, Limits.result_chars)


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
