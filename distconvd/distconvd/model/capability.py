"""Define the capabilities: kinds of sources that not every ffmpeg converts rightly.

An engine converts a tiny clip of each kind when it starts, and reports those that passed. A source of
such a kind needs an engine that has the capability. A new one is a member of `Capability`, a row here,
a clip in `distconv_engine.self_test.clips`, and a rule in `distconv_engine.checks.needs`.
"""

from enum import StrEnum


class Capability(StrEnum):
    """A kind of source that an engine has proved to convert."""

    MP4_AAC = "mp4-aac"
    VFR = "vfr"
    HDR_HEVC = "hdr-hevc"
    PNG_COVER = "png-cover"
    ZLIB_TRACKS = "zlib-tracks"
    OPEN_GOP_TS = "open-gop-ts"


CAPABILITIES: dict[Capability, str] = {
    Capability.MP4_AAC: "MP4 with AAC, whose first packets players skip",
    Capability.VFR: "a variable frame rate, as phones record it",
    Capability.HDR_HEVC: "HEVC with 10 bits and HDR colours",
    Capability.PNG_COVER: "a cover in PNG",
    Capability.ZLIB_TRACKS: "Matroska tracks that are compressed with zlib",
    Capability.OPEN_GOP_TS: "MPEG-TS with H.264, also with open groups of pictures",
}
"""What each kind of source is."""


def describe_capability(name: str) -> str:
    """Return what a kind of source is; one of a newer version is only named."""
    text = next((text for row, text in CAPABILITIES.items() if row == name), None)
    return name if text is None else f"{name} ({text})"


def capability_table() -> str:
    """Return the table as Markdown, for the documents."""
    rows = [(f"`{name}`", text) for name, text in CAPABILITIES.items()]
    lines = [("capability", "sources"), ("---", "---"), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
