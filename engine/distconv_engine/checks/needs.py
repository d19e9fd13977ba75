"""Say which capabilities a source needs of an engine, from its description.

An engine that failed with its own clip of such a kind returns the job before it trusts what its ffmpeg
says of the source. Another engine may have what is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from distconv_engine.failures import Incapable
from distconv_engine.ffmpeg.demuxers import demuxer_of
from distconv_engine.media.probe import Probe, Stream
from distconvd.model import Capability, describe_capability


@dataclass(frozen=True, slots=True)
class Rule:
    """What a source with one such stream is like; what is not stated does not matter."""

    capability: Capability
    demuxer: str | None = None
    codec: str | None = None
    has: Callable[[Stream], bool] = lambda _: True

    def fits(self, demuxer: str, stream: Stream) -> bool:
        """Whether this stream makes its source one of that kind."""
        return (
            self.demuxer in (None, demuxer)
            and self.codec in (None, stream.codec)
            and self.has(stream)
        )


RULES = (
    Rule(Capability.MP4_AAC, demuxer="mov", codec="aac"),
    Rule(Capability.VFR, has=lambda stream: stream.is_video and stream.has_variable_rate),
    Rule(Capability.HDR_HEVC, codec="hevc", has=lambda stream: stream.colour.is_hdr),
    Rule(Capability.PNG_COVER, codec="png", has=lambda stream: stream.is_cover),
    Rule(Capability.OPEN_GOP_TS, demuxer="mpegts", codec="h264"),
)
"""Zlib is missing: ffprobe itself says that a track is compressed (`Probe.is_packed`)."""


def needs_of(found: Probe) -> frozenset[Capability]:
    """Return what an engine needs to convert this source."""
    demuxer = demuxer_of(found.format).name
    needs = {rule.capability for rule in RULES for s in found.streams if rule.fits(demuxer, s)}
    return frozenset(needs | ({Capability.ZLIB_TRACKS} if found.is_packed else set()))


def check_needs(found: Probe, lacking: frozenset[Capability]) -> None:
    """Raise `Incapable` if the source needs what the engine lacks."""
    missing = sorted(needs_of(found) & lacking)
    if missing:
        kinds = ", ".join(map(describe_capability, missing))
        raise Incapable(
            f"This engine's ffmpeg did not convert its own test clip of this kind: {kinds}.",
            needs=missing,
        )
