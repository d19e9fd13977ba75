"""List every row that `docs/verdicts.md` must have: each source with each change made to it."""

from tests.engine.clips import CONTAINERS
from tests.engine.pipeline.corrupt import CORRUPTIONS
from tests.engine.pipeline.odd import ODD

CORRUPTED = "Corrupted files"
CHANGING = "Files that change while they are read"
SERVED = "Servers that misbehave"
ODD_BUT_VALID = "Odd but valid files"
UNSUPPORTED = "Streams that the requested container cannot hold"
OTHER_CORRUPTED = "Other files, corrupted"
UNDETECTABLE = "What no check can see without `source_sha256`"
AS_IT_IS = "nothing"

CHANGES = ("shrinks", "grows")
REPLACED = ("is replaced", "is written to")
ANY = "mp4-moov-first"
"""For what has nothing to do with the container."""
CHANGING_ROWS = [(kind, how) for kind in CONTAINERS for how in CHANGES]
CHANGING_ROWS += [(ANY, how) for how in REPLACED]
MISBEHAVIOUR = ("breaks off", "claims less", "claims more", "changes between requests")
LIMITED_CONTAINERS = [
    ("text-subtitles", "ts"),
    ("bitmap-subtitles", "mp4"),
    ("chapters", "ts"),
    ("cover-art", "ts"),
    ("cover-art", "mov"),
]
"""Odd files, each with a container that cannot hold all of its streams."""

DETECTED = [
    ("ac3", "sound"),
    ("eac3", "sound"),
    ("flac", "sound"),
    ("audio-only-flac", "flipped bit"),
    ("audio-only-mp3", "cut-60"),
    ("audio-only-mp3", "cut-99"),
    ("aiff", "cut-60"),
    ("au", "cut-60"),
    ("wav", "cut-99"),
    ("m4a-alac", "cut-99"),
    ("ogg", "flipped bit"),
    ("wmv", "cut-60"),
    ("wmv", "zeroed-block"),
    ("wmv", "hole"),
    ("mxf", "cut-95"),
    ("mxf", "zeroed-block"),
    ("mxf", "hole"),
    ("mpeg2-ps", "cut-60"),
    ("mpeg2-ps", "hole"),
    ("dv", "cut-99"),
    ("y4m", "cut-99"),
    ("h264-raw", "scrambled-block"),
    ("gif", "cut-95"),
    ("nut", AS_IT_IS),
    ("b-frames-open-gop-ts", "last picture"),
    ("h264-no-b-frames", "last picture"),
    ("hevc-open-gop", "hole"),
    ("prores-pcm", "last picture"),
    ("mjpeg-avi", "zeroed-block"),
    ("ffv1", "flipped bit"),
    ("av1", "scrambled-block"),
    ("av1", "zeroed-block"),
    ("dash-fragmented", "lost fragment"),
    ("dash-fragmented", "swapped fragments"),
    ("dash-indexed", "lost end"),
    ("h264-no-b-frames", "concatenated"),
    ("dash-fragmented", "concatenated"),
    ("ac3", "concatenated"),
    ("wmv", "concatenated"),
    ("wav", "concatenated"),
    ("audio-only-flac", "concatenated"),
    ("b-frames-open-gop-ts", "concatenated"),
]
"""Odd files and others, each corrupted where a decoder or the container reveals it."""
UNDETECTED = [
    ("wav", "scrambled-block"),
    ("prores-pcm", "flipped bit"),
    ("mjpeg-avi", "flipped bit"),
    ("hevc-open-gop", "last picture"),
    ("h264-raw", "hole"),
    ("vp9-mp4", "flipped bit"),
    ("vp9-mp4", "sound"),
]
"""The same where nothing reveals it: the engine completes these, unless the job gives a digest."""


def all_rows() -> list[tuple[str, str, str]]:
    """Return (section, source, change), in the page's order."""
    rows = [(CORRUPTED, kind, how) for kind in CONTAINERS for how in (AS_IT_IS, *CORRUPTIONS)]
    rows += [(CHANGING, kind, how) for kind, how in CHANGING_ROWS]
    rows += [(SERVED, kind, how) for kind in CONTAINERS for how in MISBEHAVIOUR]
    rows += [(ODD_BUT_VALID, name, AS_IT_IS) for name in ODD]
    rows += [(OTHER_CORRUPTED, name, how) for name, how in DETECTED]
    rows += [(UNDETECTABLE, name, how) for name, how in UNDETECTED]
    return rows + [
        (UNSUPPORTED, name, f"to {container}, {what}")
        for name, container in LIMITED_CONTAINERS
        for what in ("fail", "drop")
    ]
