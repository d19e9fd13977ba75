"""List the clips with which an engine tests itself, one for each capability.

`tools/self_test_clips.py` has their recipes. They are a part of the wheel, so they are tiny.
"""

from dataclasses import dataclass
from pathlib import Path

from distconvd.model import Capability

FOLDER = Path(__file__).parent / "sources"


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, and what a conversion of it has to contain."""

    capability: Capability
    file: str
    streams: int
    frames: int | None = 12
    """None: it has no picture but its cover."""
    codec: str = "h264"
    """The codec to convert it to, if this engine has an encoder for it."""

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / self.file


CLIPS: dict[Capability, Clip] = {
    row.capability: row
    for row in (
        Clip(Capability.MP4_AAC, "aac.mp4", 2),
        Clip(Capability.VFR, "vfr.mov", 1),
        Clip(Capability.HDR_HEVC, "hdr.mp4", 1, codec="hevc"),
        Clip(Capability.PNG_COVER, "cover.m4a", 2, frames=None),
        Clip(Capability.ZLIB_TRACKS, "zlib.mkv", 3),
        Clip(Capability.OPEN_GOP_TS, "open-gop.ts", 2),
    )
}
