"""Probe the tracks of a Matroska file that are stored in compressed form.

An ffprobe without zlib returns such packets as they are stored. Their number and their times are right,
but no parser finds pixel format or channels in them. The full build of ffmpeg has zlib: it copies the
first seconds into a pipe, without the compression, and ffprobe reads what it lacked from there.
"""

from dataclasses import replace

from distconv_engine.ffmpeg.inputs import read_arguments
from distconv_engine.ffmpeg.stderr import LOG_LEVEL
from distconv_engine.media.probe import Probe, Stream

COPIED_S = 10
"""More than enough for every parameter of a stream."""
FORMAT = "matroska"


def copy_arguments(ffmpeg: str, url: str, formats: str | None, write_end: int) -> list[str]:
    """Return the command that copies the beginning of video and audio into the pipe `write_end`."""
    argv = [ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", LOG_LEVEL]
    argv += [*read_arguments(url, formats), "-map", "0:V?", "-map", "0:a?", "-t", str(COPIED_S)]
    return [*argv, "-c", "copy", "-copyinkf", "-f", FORMAT, f"pipe:{write_end}"]


def with_parameters(stored: Probe, unpacked: Probe) -> Probe:
    """Return `stored` with the parameters of video and audio that `unpacked` has; pure."""
    copies = iter(unpacked.streams)
    found: dict[int, Stream] = {}
    for kind in ("video", "audio"):
        for stream in stored.of_kind(kind):
            if copy := next(copies, None):
                found[stream.index] = _merged(stream, copy)
    return replace(
        stored, is_packed=True, streams=tuple(found.get(s.index, s) for s in stored.streams)
    )


def _merged(stream: Stream, copy: Stream) -> Stream:
    """Return `stream` with what only its packets say; what the container says is not in the copy."""
    return replace(
        stream,
        pix_fmt=copy.pix_fmt,
        has_alpha=stream.has_alpha or copy.has_alpha,
        field_order=copy.field_order,
        colour=copy.colour,
        channels=copy.channels,
        has_layout=copy.has_layout,
        layout=copy.layout,
        sample_rate=copy.sample_rate,
        has_extradata=copy.has_extradata,
    )
