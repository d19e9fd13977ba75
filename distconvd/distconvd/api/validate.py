"""Check what types cannot express: URLs, file names, and fields that must agree.

Each error names the field. The same checks apply to HTTP and the spool. Bounds of single fields are
in the types, see `model.bounds`.
"""

from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from distconvd.api.decode import bad_field
from distconvd.errors import BadRequest
from distconvd.model import (
    CodecName,
    EngineId,
    Limits,
    Output,
    Submission,
    TranscodeOptions,
    canonical_codec,
    find_fault,
    is_denied,
)


def check_submission(job: Submission, schemes: list[str]) -> None:
    """Raise `BadRequest` for an invalid job, however it was made: its bounds are checked too."""
    _check_value(msgspec.to_builtins(job), Submission, "")
    check_decoded(job, schemes)


def check_decoded(job: Submission, schemes: list[str]) -> None:
    """Raise `BadRequest` for an invalid job that has been decoded, and so is within its bounds.

    `schemes` are those allowed for sources.
    """
    check_url(job.source_url, "source_url", schemes)
    if job.output is not None:
        _check_output(job.output)
    _check_options(job.options, canonical_codec(job.target_codec), job.output)


def check_id(value: str, field: str) -> None:
    """Raise `BadRequest` unless this can be an id: no space, slash or control character."""
    _check_value(value, EngineId, field)


def check_codec(value: str, field: str) -> None:
    """Raise `BadRequest` unless this looks like the name of a codec: one short word."""
    _check_value(value, CodecName, field)


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
    if parts.hostname and is_denied(parts.hostname):
        raise BadRequest(
            f"'{field}' names a host that no job may use: link-local, metadata, multicast or reserved.",
            field=field,
        )


def _check_value(value: object, kind: Any, field: str) -> None:
    """Raise `BadRequest` unless a value is of a type and within its bounds."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise bad_field(error, kind, field) from error


def _check_options(options: TranscodeOptions, codec: str, output: Output | None) -> None:
    """Check that options can work; `output`'s file name may imply a container."""
    for name in ("preset", "tune"):
        value = getattr(options, name)
        if value is not None and not _is_word(value):
            field = f"options.{name}"
            raise BadRequest(f"'{field}' must be one short word.", field=field)
    fault = find_fault(options, codec, output)
    if fault is not None:
        raise BadRequest(str(fault), field=fault.field)


def _is_word(value: str) -> bool:
    """Whether this looks like the name of a codec, as presets and tunes do."""
    try:
        msgspec.convert(value, CodecName)
    except msgspec.ValidationError:
        return False
    return True


def _check_output(output: Output) -> None:
    if output.url is not None:
        check_url(output.url, "output.url", ["file", "http", "https"])
        _check_no_dot_file(output.url)
    name = output.name
    if name is None:
        return
    if name.startswith("."):
        raise BadRequest("'output.name' must not begin with a dot.", field="output.name")
    is_plain = name and not set(name) & {"/", "\\", "\0"}
    if not is_plain or not name.isprintable() or len(name.encode("utf-8", "replace")) > 255:
        raise BadRequest(
            "'output.name' must be a file name of at most 255 bytes, without a directory.",
            field="output.name",
        )


def _check_no_dot_file(url: str) -> None:
    """Raise `BadRequest` for a `file://` output whose last part begins with a dot."""
    parts = urlsplit(url)
    if parts.scheme == "file" and unquote(parts.path).rpartition("/")[2].startswith("."):
        raise BadRequest(
            "'output.url' must not name a file that begins with a dot.", field="output.url"
        )
