"""List the checks that an attempt has to pass, and the notes on how it was done.

A job's `result.checks` has the names of `Check`, in their order; `result.notes` what is no check.
docs/user_guide.md shows `CHECKS` and `NOTES`, docs/verification.md the `MEASURES` that the checks
consist of. A check that is not listed here cannot be reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from distconv_engine.ffmpeg.tools import Origin


class Check(StrEnum):
    """A check, in the order in which results list them."""

    CONTAINER_COMPLETE = "container-complete"
    PACKETS_WHOLE = "packets-whole"
    HEADER_MATCHES_PACKETS = "header-matches-packets"
    CONTAINER = "container"
    STREAMS = "streams"
    CODECS = "codecs"
    PICTURE_SIZE = "picture-size"
    COLOUR_TAGS = "colour-tags"
    DESCRIPTION = "description"
    PACKETS_READ = "packets-read"
    FRAMES = "frames"
    FRAME_TIMES = "frame-times"
    DURATIONS = "durations"
    DECODES = "decodes"
    PARSES = "parses"
    PACKETS_AS_DECODED = "packets-as-decoded"
    SOURCE_UNCHANGED = "source-unchanged"
    TARGET_READ_BACK = "target-read-back"


class Note(StrEnum):
    """What a person may want to know of a result that is no check."""

    STREAMED = "streamed"
    FRAGMENTED = "fragmented"
    UNINDEXED = "unindexed"
    FALLBACK = "fallback-from-NAME"
    BUNDLED_FFMPEG = "bundled-ffmpeg"
    SYSTEM_FFMPEG = "system-ffmpeg"
    TRAILING_BYTES = "trailing-bytes"
    UNSET_LENGTH = "unset-length"
    EMPTY_STREAM = "empty-stream"
    BEGINS_MID_GROUP = "begins-mid-group"
    BAD_CHAPTER = "bad-chapter"
    REPEATED_PICTURES = "repeated-pictures"
    HEADER_DURATION = "header-duration"
    PACKET_LENGTHS = "packet-lengths"
    LOST_ATTACHMENT = "lost-attachment"
    UNCONFIRMED_MESSAGE = "unconfirmed-message"


CHECKS: dict[Check, str] = {
    Check.CONTAINER_COMPLETE: "the bytes of the source file against the lengths that its own"
    " container states; absent: it states none",
    Check.PACKETS_WHOLE: "every packet of the source is read, and none is damaged or consists of"
    " zero bytes",
    Check.HEADER_MATCHES_PACKETS: "duration and frame count of the source's header against its"
    " packets",
    Check.CONTAINER: "the container of the output against the one that was planned",
    Check.STREAMS: "the output's streams and chapters against those that were planned",
    Check.CODECS: "the codec of each stream against the one that was planned",
    Check.PICTURE_SIZE: "width, height and bit depth of the picture against what the job asked for",
    Check.COLOUR_TAGS: "the output's HDR tag against the source's",
    Check.DESCRIPTION: "titles, languages, marks (`default`, `forced` …), tags, colours and HDR data"
    " against the source's; what the output lacks is in `result.dropped`",
    Check.PACKETS_READ: "the packets that ffmpeg read against those counted in the source",
    Check.FRAMES: "the frames of the output against those decoded from the source",
    Check.FRAME_TIMES: "when each frame of the output is shown against when its source shows it, to the"
    " tick; absent: the source does not say for every frame, or `max_fps` sets a rate",
    Check.DURATIONS: "the duration of each stream against that of the source's packets",
    Check.DECODES: "every frame of the output decodes",
    Check.PARSES: "instead of `decodes`: every header of the output is parsed, because the engine has"
    " no decoder for it",
    Check.PACKETS_AS_DECODED: "the output was decoded while it was encoded, and the file contains the"
    " same packets, byte for byte; absent: it was decoded afterwards",
    Check.SOURCE_UNCHANGED: "the source is still the file that it was at the beginning",
    Check.TARGET_READ_BACK: "the bytes that the target's server returns after a streaming upload"
    " against those sent; absent: it does not let the engine read",
}
"""What each check compares."""
NOTES: dict[Note, str] = {
    Note.STREAMED: "neither source nor result was stored on the engine; see `docs/verification.md`",
    Note.FRAGMENTED: "a streaming upload: the index is in the fragments of the mp4 or mov",
    Note.UNINDEXED: "a streaming upload: the file has no index at its end",
    Note.FALLBACK: "this hardware encoder failed, another encoder was used",
    Note.BUNDLED_FFMPEG: "the ffmpeg that the engine's setting names lacks something that the job needs;"
    " the bundled one did it, and `ffmpeg_version` is its version",
    Note.SYSTEM_FFMPEG: "the bundled ffmpeg lacks the hardware encoder; the system's did it, and"
    " `ffmpeg_version` is its version",
    Note.TRAILING_BYTES: "bytes follow the end of the source's container, as some cameras write them; they"
    " are no picture and no sound, and are not in the result",
    Note.UNSET_LENGTH: "the source's header does not say how long it is, as after a recording into a pipe;"
    " it was converted up to its last byte",
    Note.EMPTY_STREAM: "the source announces a stream that has no packet; `dropped` names it",
    Note.BEGINS_MID_GROUP: "the source begins between two key frames; its picture begins at the first",
    Note.BAD_CHAPTER: "a chapter of the source has impossible times",
    Note.REPEATED_PICTURES: "empty packets of the source repeat the picture before; they are no pictures of"
    " their own in the result",
    Note.HEADER_DURATION: "the source's header states a longer duration than its packets have, although none"
    " is missing",
    Note.PACKET_LENGTHS: "the source, a transport stream, states wrong lengths of its packets; none of them is"
    " missing, as their counters show",
    Note.LOST_ATTACHMENT: "an attachment of the source has no name or no type, so it cannot be read; `dropped`"
    " names it",
    Note.UNCONFIRMED_MESSAGE: "ffmpeg reported an error in the source, but every packet is there and a strict"
    " decode of all of them succeeded",
}
"""What each note says."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is examined; it may be a part of one check, of several, or of none."""

    title: str
    of: Literal["source", "output"]
    checks: tuple[Check, ...]
    """The checks that pass only if it is good; empty: no result lists it."""
    catches: str


MEASURES: tuple[Measure, ...] = (
    Measure(
        "container bytes",
        "source",
        (Check.CONTAINER_COMPLETE,),
        "a cut in any container that states a length: mp4, mov, mkv, webm, avi, wav, aiff, au, flv,"
        " wmv, mp3; TS packets, Ogg pages, DV and MP3 frames that are not whole; broken links in the"
        " chains of mp4, avi, mxf and wmv, which demuxers skip in silence; fragments of an mp4 that"
        " are missing, duplicated or swapped",
    ),
    Measure(
        "no second file",
        "source",
        (Check.CONTAINER_COMPLETE, Check.PACKETS_WHOLE),
        "files concatenated by `cat`, of which players show only one: mp4, mov, mkv, webm, wav, flv,"
        " wmv, flac, aiff, au, caf. TS, MPEG-PS and chained Ogg, whose clock may start again, are"
        " converted completely, unless the seam looks like damage; so are AVI and formats that"
        " consist of packets only",
    ),
    Measure(
        "readable at all",
        "source",
        (),
        "text with a video's name, playlists, a header alone, a missing index",
    ),
    Measure(
        "every packet",
        "source",
        (Check.PACKETS_WHOLE,),
        "broken chains, lost sync, packets that the demuxer flags, long runs of zero bytes in packets"
        " that never have one",
    ),
    Measure(
        "header against packets",
        "source",
        (Check.HEADER_MATCHES_PACKETS,),
        "a stated duration or frame count that the packets do not have",
    ),
    Measure(
        "decoding all of it",
        "source",
        (Check.PACKETS_READ, Check.FRAMES),
        "damage inside frames; wrong checksums (AC-3, FLAC, MP3, FFV1); frames that ffmpeg lost"
        " without a message",
    ),
    Measure(
        "the file itself",
        "source",
        (Check.SOURCE_UNCHANGED,),
        "a source that shrinks, grows, is written to or replaced while it is read; over HTTP another"
        " ETag, date or length at any request",
    ),
    Measure(
        "digest",
        "source",
        (),
        "any change at all, where the job gives `source_sha256`",
    ),
    Measure(
        "shape",
        "output",
        (
            Check.CONTAINER,
            Check.STREAMS,
            Check.CODECS,
            Check.PICTURE_SIZE,
            Check.COLOUR_TAGS,
        ),
        "another codec, size or container than asked for; a lost stream, chapter or HDR tag",
    ),
    Measure(
        "description",
        "output",
        (Check.DESCRIPTION,),
        "a title, a language, a mark (`default`, `forced` …), a tag, a colour tag or HDR data that the output"
        " lacks: listed in `result.dropped`, and no failure",
    ),
    Measure(
        "counts",
        "output",
        (Check.FRAMES, Check.DURATIONS),
        "a loss anywhere between the source's packets and the frames of the decoded output; copied"
        " sound that an edit list had hidden and that would now be audible",
    ),
    Measure(
        "frame by frame",
        "output",
        (Check.FRAME_TIMES,),
        "a frame that is shown earlier or later than in the source, by more than a tick of the output's"
        " clock; frames that were dropped and repeated to fit a constant rate. Absent: the source gives"
        " no times (elementary streams), or the job sets a lower rate",
    ),
    Measure(
        "decoding",
        "output",
        (Check.DECODES, Check.PARSES),
        "an output that does not decode. `parses` instead: this engine has no decoder for the codec,"
        " only headers were parsed",
    ),
    Measure(
        "the bytes on the disk",
        "output",
        (Check.PACKETS_AS_DECODED,),
        "any change to a packet between encoder and disk, even one that decodes. Absent: the file was"
        " decoded after the encode, see below",
    ),
    Measure(
        "after a streaming upload",
        "output",
        (Check.TARGET_READ_BACK,),
        "a server that stores other bytes than it was sent. Absent: the server does not let the"
        " engine read",
    ),
)


def in_order(passed: Iterable[Check]) -> list[str]:
    """Return the names of the checks that passed, as a result lists them."""
    found = frozenset(passed)
    return [check.value for check in Check if check in found]


def fallback_from(encoder: str) -> str:
    """Return the note on a hardware encoder that failed."""
    return Note.FALLBACK.replace("NAME", encoder)


def other_ffmpeg(origin: Origin) -> Note | None:
    """Return the note on an ffmpeg that took over from the chosen one."""
    return {Origin.BUNDLED: Note.BUNDLED_FFMPEG, Origin.SYSTEM: Note.SYSTEM_FFMPEG}.get(origin)


def check_table() -> str:
    """Return the checks as Markdown, for the user guide."""
    return _table(("check", "what it compares"), ((f"`{c}`", text) for c, text in CHECKS.items()))


def note_table() -> str:
    """Return the notes as Markdown, for the user guide."""
    return _table(("note", "what it says"), ((f"`{note}`", text) for note, text in NOTES.items()))


def measure_table(of: Literal["source", "output"]) -> str:
    """Return the measures on one side as Markdown, for docs/verification.md."""
    return _table(
        ("check", "in `result.checks`", "what it catches"),
        (
            (row.title, ", ".join(f"`{check}`" for check in row.checks) or "none", row.catches)
            for row in MEASURES
            if row.of == of
        ),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
