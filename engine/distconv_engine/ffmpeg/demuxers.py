"""List ffmpeg's demuxers for the containers and elementary streams that may be sources.

No other demuxer may open a source: a playlist (HLS, DASH, concat, SDP, image patterns) names other
files. Also missing, on purpose, are NUT, VOC, and bare DTS and TrueHD, whose demuxers skip damage
silently, and GXF, whose demuxer always reports an error at the end.

A row says how far a source's header can be believed, and where packets can be found in the file.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demuxer:
    """One demuxer; a fact that is not stated does not hold."""

    name: str
    """The first of its names."""
    aliases: tuple[str, ...] = ()
    """Its other names."""
    states_duration: bool = False
    """The duration is stated in the file, not estimated from its bit rate."""
    counts_frames: bool = False
    """The header's number of frames is that of the packets. (AVI also counts empty chunks, which
    repeat the previous picture.)"""
    counts_bytes: bool = False
    """Its structure shows that all packets are there, so its duration is only a guess."""
    adds_start: bool = False
    """The duration that ffprobe gives may count the time before a stream that begins late twice."""
    hides_packets: bool = False
    """Its edit lists hide packets, some so well that no reader sees them; `-ignore_editlist` shows all."""
    places_packets: bool = False
    """Each packet is reported with its true place in the file."""
    ends_with_packet: bool = False
    """The file consists of packets up to the last byte."""
    restarts_clock: bool = False
    """The clock may restart within a file (chains, broadcasts), which ffmpeg corrects."""
    states_marks: bool = False
    """Each stream states whether it is a default."""


_WITH_FACTS = (
    Demuxer(
        "mov", ("mp4", "m4a", "3gp", "3g2", "mj2"),
        states_duration=True, counts_frames=True, hides_packets=True, places_packets=True,
        states_marks=True,
    ),
    Demuxer(
        "matroska", ("webm",), states_duration=True, counts_bytes=True, places_packets=True,
        states_marks=True,
    ),
    Demuxer("mpegts", restarts_clock=True),
    Demuxer("avi", states_duration=True, places_packets=True),
    Demuxer("flv", states_duration=True, places_packets=True, restarts_clock=True),
    Demuxer("live_flv", restarts_clock=True),
    Demuxer("mpeg", restarts_clock=True),
    Demuxer("asf", states_duration=True, counts_bytes=True, adds_start=True),
    Demuxer("ogg", states_duration=True, adds_start=True, restarts_clock=True),
    Demuxer("mxf", states_duration=True),
    Demuxer("wav", states_duration=True),
    Demuxer("flac", states_duration=True),
    Demuxer("yuv4mpegpipe", ends_with_packet=True),
)  # fmt: skip
_WITHOUT = (
    "dv", "rm", "wtv", "ivf", "obu", "av1", "h264", "hevc", "vvc", "m4v", "mpegvideo", "h261", "h263",
    "vc1", "dirac", "gif", "apng", "w64", "rf64", "aiff", "caf", "au", "mp3", "aac", "ac3", "eac3",
    "amr", "ape", "wv", "tta", "tak", "mpc", "mpc8", "swf", "smk", "bink", "roq", "vivo", "film_cpk",
    "cavsvideo", "nuv", "nsv", "thp", "xmv", "bmv", "mtv",
)  # fmt: skip

DEMUXERS: dict[str, Demuxer] = {
    row.name: row for row in (*_WITH_FACTS, *(Demuxer(name) for name in _WITHOUT))
}
DEMUXER_NAMES = ",".join(name for row in DEMUXERS.values() for name in (row.name, *row.aliases))
"""As ffmpeg's option `-format_whitelist` takes them."""


def demuxer_of(names: str) -> Demuxer:
    """Return the demuxer that ffprobe names, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    first = names.partition(",")[0]
    return DEMUXERS.get(first) or Demuxer(first)
