"""The flags for what the output should be like: one for every field of `TranscodeOptions`.

The value's type comes from the model, so a flag can not drift from it; here are only the words
for a person. A test fails when the model has a field that is not in the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from distconvd.model import TranscodeOptions

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field of `TranscodeOptions` is written on the command line."""

    names: str
    help: str
    metavar: str | None = None


FLAGS: dict[str, Flag] = {
    "container": Flag("--container", "File format; default: what suits the codec."),
    "crf": Flag("--crf", "Constant quality; lower is better and larger.", "N"),
    "video_bitrate_kbps": Flag("--video-bitrate", "Video bit rate instead of --crf.", "KBPS"),
    "preset": Flag("--preset", "The encoder's speed, such as fast, slow or 8.", "NAME"),
    "max_width": Flag("--max-width", "Scale down to this width; never up.", "PIXELS"),
    "max_height": Flag("--max-height", "Scale down to this height; never up.", "PIXELS"),
    "max_fps": Flag("--max-fps", "Drop frames above this rate.", "FPS"),
    "audio_codec": Flag("--audio-codec", "Default: copy where the container takes it."),
    "audio_bitrate_kbps": Flag("--audio-bitrate", "Audio bit rate.", "KBPS"),
    "subtitles": Flag("--subtitles", "Default: keep."),
    "faststart": Flag("--faststart/--no-faststart", "Put the mp4 index first, for the web."),
    "two_pass": Flag("--two-pass/--one-pass", "Two passes, for --video-bitrate."),
    "tune": Flag("--tune", "The encoder's tuning, such as film or grain.", "NAME"),
    "on_unsupported": Flag(
        "--on-unsupported", "When the container can not hold a stream: fail (default) or drop it."
    ),
}


def transcode_flags(function: F) -> F:
    """Add one option for each field of `TranscodeOptions`; the values come by field name."""
    types = get_type_hints(TranscodeOptions)
    for field in reversed(FLAGS):
        function = option(field, FLAGS[field], types[field])(function)
    return function


def option(field: str, flag: Flag, hint: Any) -> Callable[[F], F]:
    """Return the click option of one field; left out on the command line it is None."""
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


def transcode_options(values: dict[str, Any]) -> TranscodeOptions:
    """Return the options that the flags set; what was left out keeps the model's default."""
    given = {field: values[field] for field in FLAGS if values[field] is not None}
    return TranscodeOptions(**given)
