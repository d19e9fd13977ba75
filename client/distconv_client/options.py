"""Define the flags for the output: one for every field of `TranscodeOptions`.

The value's type comes from the model, so a flag cannot drift from it; this table adds only the
words for a person. A test fails when a field of the model is missing from the table.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from distconv_client.errors import Refused
from distconvd.model import TranscodeOptions

F = TypeVar("F", bound=Callable[..., Any])

SUBMISSION_FLAGS = {
    "target_codec": "--codec",
    "output": "--output",
    "output.url": "--output",
    "labels": "--label",
    "requires": "--requires",
    "priority": "--priority",
    "max_retries": "--max-retries",
    "job_size": "--job-size",
    "source_sha256": "--sha256",
}
"""The flags of `distconv submit` by the fields of a submission, except its options."""


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field of `TranscodeOptions` is written on the command line."""

    names: str
    help: str
    metavar: str | None = None


FLAGS: dict[str, Flag] = {
    "container": Flag("--container", "File format; default: the usual one for the codec."),
    "crf": Flag("--crf", "Constant quality; a lower number is better and larger.", "N"),
    "video_bitrate_kbps": Flag("--video-bitrate", "Video bit rate, instead of --crf.", "KBPS"),
    "preset": Flag("--preset", "The encoder's speed, such as fast, slow or 8.", "NAME"),
    "max_width": Flag("--max-width", "Scale down to this width; never up.", "PIXELS"),
    "max_height": Flag("--max-height", "Scale down to this height; never up.", "PIXELS"),
    "max_fps": Flag("--max-fps", "Drop frames beyond this rate.", "FPS"),
    "audio_codec": Flag("--audio-codec", "Audio codec; default: copy if the container allows it."),
    "audio_bitrate_kbps": Flag("--audio-bitrate", "Audio bit rate.", "KBPS"),
    "subtitles": Flag("--subtitles", "Keep (default) or drop subtitles."),
    "faststart": Flag(
        "--faststart/--no-faststart", "Put the index of an mp4 first, for playback on the web."
    ),
    "two_pass": Flag("--two-pass/--one-pass", "Encode in two passes, for --video-bitrate."),
    "tune": Flag("--tune", "The encoder's tuning, such as film or grain.", "NAME"),
    "overwrite": Flag(
        "--overwrite/--no-overwrite",
        "Replace an existing file of the output's name; default: the job fails.",
    ),
    "on_unsupported": Flag(
        "--on-unsupported", "If the container cannot hold a stream: fail (default) or drop it."
    ),
    "on_damage": Flag(
        "--on-damage", "If the source is damaged: refuse (default), or convert what can be decoded."
    ),
}


_FIELDS = re.compile(rf"'(?:{'|'.join(map(re.escape, SUBMISSION_FLAGS))})'|'?\boptions\.\w+'?")
"""Field names in the daemon's sentences: most are quoted, those of options not always."""


def transcode_flags(function: F) -> F:
    """Add one option for each field of `TranscodeOptions`; values are passed by field name."""
    types = get_type_hints(TranscodeOptions)
    for field in reversed(FLAGS):
        function = option(field, FLAGS[field], types[field])(function)
    return function


def option(field: str, flag: Flag, hint: Any) -> Callable[[F], F]:
    """Return the click option of one field; its default is None."""
    kind = next((part for part in get_args(hint) if part is not type(None)), hint)
    literal = hint if get_origin(hint) is Literal else kind
    if get_origin(literal) is Literal:
        choice = click.Choice(get_args(literal))
        return click.option(flag.names, field, type=choice, default=None, help=flag.help)
    if kind is bool:
        return click.option(flag.names, field, default=None, help=flag.help)
    return click.option(
        flag.names, field, type=kind, metavar=flag.metavar, default=None, help=flag.help
    )


def with_flag_names(error: Refused) -> Refused:
    """Return `error` with the flags that a person typed in place of the API's field names."""

    def flag_of(found: re.Match[str]) -> str:
        field = found[0].strip("'")
        if field in SUBMISSION_FLAGS:
            return SUBMISSION_FLAGS[field]
        flag = FLAGS.get(field.removeprefix("options."))
        return found[0] if flag is None else flag.names.partition("/")[0]

    detail = _FIELDS.sub(flag_of, error.detail)
    field = error.field and _FIELDS.sub(flag_of, f"'{error.field}'").strip("'")
    return type(error)(error.status, error.title, detail, field=field, hint=error.hint)


def transcode_options(values: dict[str, Any]) -> TranscodeOptions:
    """Return the options that the flags set; other fields keep the model's default."""
    given = {field: values[field] for field in FLAGS if values[field] is not None}
    return TranscodeOptions(**given)
