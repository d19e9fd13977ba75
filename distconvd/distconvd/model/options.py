"""Check options against the tables of codecs and containers: ranges and combinations.

The daemon checks at submission and answers 400; the engine checks again, since its job may come
from another daemon. For a codec that is not in the table only the general ranges are checked.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_type_hints

from distconvd.model.bounds import RANGE
from distconvd.model.codec import AUDIO_CODECS, CODECS, Codec
from distconvd.model.container import CONTAINERS, ContainerRules, container_of
from distconvd.model.job import Output, TranscodeOptions


def _range_of(hint: Any) -> tuple[float, float] | None:
    """Return the range that a field's type states, see `bounds.shown_range`."""
    notes = (note for part in get_args(hint) for note in getattr(part, "__metadata__", ()))
    return next((note.extra[RANGE] for note in notes if note.extra), None)


_WITH_INDEX = [row.name for row in CONTAINERS.values() if row.faststart]
OPTION_RANGES: dict[str, tuple[float, float]] = {
    name: found
    for name, hint in get_type_hints(TranscodeOptions, include_extras=True).items()
    if (found := _range_of(hint)) is not None
}
"""The least and greatest value of each number, for any codec: as `TranscodeOptions` states them."""


class OptionFault(NamedTuple):
    """What is wrong: the field, and the rest of the sentence about it."""

    field: str
    words: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"'{self.field}' {self.words}."


def find_fault(
    options: TranscodeOptions, codec: str, output: Output | None = None
) -> OptionFault | None:
    """Return the first reason why no engine could do this, or None.

    Args:
        options: the job's options.
        codec: the canonical name of its codec.
        output: the job's output; the suffix of a name may ask for a container.
    """
    return next(_faults(options, codec, output), None)


def _faults(options: TranscodeOptions, codec: str, output: Output | None) -> Iterator[OptionFault]:
    known = CODECS.get(codec)
    if known is not None:
        yield from _beyond_codec(options, known)  # its ranges are the narrower ones
    yield from _out_of_range(options)
    yield from _contradictions(options)
    if options.container is None:
        yield from _names_apart(output)
    field, container = _container(options, output)
    if container is not None:
        yield from _beyond_container(options, known, field, container)
    elif options.faststart and known is not None and not _may_start_fast(known):
        yield _option("faststart", f"needs {' or '.join(_WITH_INDEX)}, and {codec} goes into"
                      f" {known.containers[0]}; set options.container, or leave it out")  # fmt: skip


def _out_of_range(options: TranscodeOptions) -> Iterator[OptionFault]:
    for name, (least, most) in OPTION_RANGES.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            yield _option(name, f"must be from {least:g} to {most:g}")


def _contradictions(options: TranscodeOptions) -> Iterator[OptionFault]:
    if options.crf is not None and options.video_bitrate_kbps is not None:
        yield _option("crf", "and options.video_bitrate_kbps cannot be combined; give one")
    if options.two_pass and options.video_bitrate_kbps is None:
        yield _option("two_pass", "needs options.video_bitrate_kbps")
    if options.audio_bitrate_kbps is not None and options.audio_codec in ("copy", "none"):
        words = f"has no meaning with {options.audio_codec!r} audio"
        yield _option("audio_bitrate_kbps", words)


def _beyond_codec(options: TranscodeOptions, codec: Codec) -> Iterator[OptionFault]:
    name = codec.name
    if options.crf is not None and options.crf not in codec.crf:
        yield _option("crf", f"must be from {codec.crf[0]} to {codec.crf[-1]} for {name}")
    kbps = options.video_bitrate_kbps
    if kbps is not None and kbps > codec.bitrate_kbps_max:
        yield _option("video_bitrate_kbps", f"must be at most {codec.bitrate_kbps_max} for {name}")
    if options.preset is not None and options.preset not in codec.presets:
        yield _option("preset", f"must be one of {', '.join(codec.presets)} for {name}")
    if options.tune is not None and options.tune not in codec.tunes:
        known = f"must be one of {', '.join(codec.tunes)}" if codec.tunes else "is not available"
        yield _option("tune", f"{known} for {name}")
    if options.two_pass and not codec.two_pass:
        yield _option("two_pass", f"is not available for {name}")


def _beyond_container(
    options: TranscodeOptions, codec: Codec | None, field: str, container: ContainerRules
) -> Iterator[OptionFault]:
    name = container.name
    if codec is not None and codec.name not in container.video:
        yield OptionFault(field, f"{name} cannot hold {codec.name} video")
    wanted = options.audio_codec
    if wanted in AUDIO_CODECS and wanted not in container.audio:
        words = f"{wanted} does not fit into {name}; use {' or '.join(container.audio)}"
        yield _option("audio_codec", words)
    if options.faststart and not container.faststart:
        yield _option("faststart", f"is for {' and '.join(_WITH_INDEX)}, not for {name}")


def _container(
    options: TranscodeOptions, output: Output | None
) -> tuple[str, ContainerRules | None]:
    """Return the container that a job names, and the field that names it."""
    if options.container is not None:
        return "options.container", CONTAINERS[options.container]
    if output is None:
        return "", None
    field, name = ("output.name", output.name) if output.name else ("output.url", output.url or "")
    container = container_of(name)
    return field, CONTAINERS[container] if container else None


def _names_apart(output: Output | None) -> Iterator[OptionFault]:
    """Find a URL and a name whose suffixes ask for different containers."""
    if output is None:
        return
    of_url, of_name = container_of(output.url or ""), container_of(output.name or "")
    if of_url and of_name and of_url != of_name:
        yield OptionFault("output.name", f"asks for {of_name}, output.url for {of_url}; give one")


def _may_start_fast(codec: Codec) -> bool:
    return any(row.faststart for row in CONTAINERS.values() if row.name in codec.containers)


def _option(name: str, words: str) -> OptionFault:
    return OptionFault(f"options.{name}", words)
