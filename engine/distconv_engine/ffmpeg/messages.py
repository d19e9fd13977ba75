"""List the kinds of ffmpeg's messages: what each says, of which part, and what confirms it.

A message is evidence, not a verdict. Some prove damage by themselves, since the program that writes
them has compared what it read with a checksum or a rule of the format. Others count only if what was
counted confirms them. A message that no row knows is judged like the latter: by gaps in the packets,
by frames that are missing, and by a strict decode.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What of a source a message is about."""

    PICTURE = "picture"
    SOUND = "sound"
    SUBTITLE = "subtitle"
    CHAPTER = "chapter"
    ATTACHMENT = "attachment"
    HEADER = "header"
    PACKET = "packet"
    UNKNOWN = "unknown"


class Confirmed(StrEnum):
    """What has to be found for a message to count as damage."""

    BY_ITSELF = "by itself"
    BY_PACKETS = "by packets"
    """Packets that the demuxer flagged as corrupt; `PacketScan` counts them."""
    AFTER_FIRST_KEY = "after the first key frame"
    """Frames are missing beyond those before the first key frame."""
    BY_FRAMES = "by frames"
    """Frames or packets are missing, or a strict decode fails."""
    NEVER = "never"
    """No picture and no sound can be missing."""


@dataclass(frozen=True, slots=True)
class MessageKind:
    """One kind of message."""

    name: str
    says: str
    """A pattern for its words."""
    part: Part
    confirmed: Confirmed
    levels: frozenset[str] = frozenset({"error", "fatal", "panic"})


_WARNED = frozenset({"warning", "error", "fatal", "panic"})


def _never(name: str, says: str, part: Part) -> MessageKind:
    return MessageKind(name, says, part, Confirmed.NEVER, _WARNED)


def _proof(name: str, says: str, part: Part = Part.PICTURE) -> MessageKind:
    return MessageKind(name, says, part, Confirmed.BY_ITSELF)


MESSAGES: tuple[MessageKind, ...] = (
    # ------------------------------------------------------------- no picture, no sound is concerned
    _never("open-group", r"co located POCs unavailable", Part.PICTURE),  # a recording's start
    # Logged for most recordings that begin at an open GOP and are whole. For a stream from which one
    # picture was removed it is the only message in one case of ten; in seven there is none.
    _never("open-group", r"mmco: unref short failure", Part.PICTURE),
    _never("picture-metadata", r"[Uu]nable to (?:decode|parse) APP fields", Part.HEADER),
    _never("unused-fragments", r"could not find corresponding trex", Part.HEADER),
    _never("null-muxer", r"non monotonically increasing dts", Part.PACKET),
    _never("skipped-samples", r"Could not update timestamps for (?:skipped|discarded) samples", Part.SOUND),
    _never("chapter-track", r"Referenced QT chapter track not found", Part.CHAPTER),
    _never("bad-chapter", r"Chapter end time .* before start|[Ii]nvalid chapter|Error parsing chapter", Part.CHAPTER),
    _never("attachment", r"[Aa]ttachment|[Ff]ailed to read attached", Part.ATTACHMENT),
    # From an encoder, which logs under its decoder's name:
    _never("encoder-layout", r"Unsupported channel layout", Part.SOUND),
    # ------------------------------------------------------ the demuxer has flagged the packets, too
    MessageKind(
        "corrupt-packet", r"Packet corrupt \(|corrupt input packet", Part.PACKET,
        Confirmed.BY_PACKETS, _WARNED,
    ),
    MessageKind(
        "packet-length", r"PES packet size mismatch", Part.PACKET, Confirmed.BY_PACKETS, _WARNED
    ),
    # --------------------------------- as a decoder speaks that has not come to a key frame
    MessageKind(
        "no-parameters",
        r"non-existing [SP]PS|[SP]PS id out of range|[PSV]PS \d+ (?:does not exist|not available)|"
        r"[PSV]PS id \d+ not available|no frame!|Invalid frame dimensions 0x0|"
        r"Error parsing NAL unit|Missing sequence header|sequence header",
        Part.PICTURE, Confirmed.AFTER_FIRST_KEY,
    ),
    MessageKind(
        "no-reference",
        r"[Mm]issing reference picture|reference picture missing|Could not find ref with POC|"
        r"Not all references are available|Requested reference .* not available|"
        r"Discarding (?:a |the )?(?:leading|non-?key)|no (?:key|I)-?frame",
        Part.PICTURE, Confirmed.AFTER_FIRST_KEY,
    ),
    # ------------------------------------------------------------------- compared, and found to differ
    MessageKind(
        "corrupt-frame", r"corrupt decoded frame|concealing \d+ DC", Part.PICTURE,
        Confirmed.BY_ITSELF, _WARNED,
    ),
    _proof("checksum", r"CRC (?:mismatch|error)|checksum (?:mismatch|error)|[Ii]nvalid checksum", Part.UNKNOWN),
    _proof("decoder-refuses", r"Error submitting (?:a )?packet to (?:the )?decoder", Part.UNKNOWN),
    _proof("macroblock", r"error while decoding MB|ac-tex damaged|cabac decode of|Invalid level prefix|negative number of zero coeffs|slice mismatch"),
    _proof("ends-early", r"partial file|ended prematurely|[Tt]runcat(?:ed|ing)|Read error|moov atom not found|unexpected end", Part.PACKET),
    _proof("lost-sync", r"invalid as first byte of an EBML number|exceeds (?:containing|max)|exceeds parent|Packet mismatch|invalid sync code|Header missing", Part.PACKET),
    _proof("bitstream", r"Error parsing OBU data|out of range: \d+, but must be in"),
    _proof("unit-length", r"Invalid NAL unit size", Part.PICTURE),
    _proof(
        "damage-words",
        r"\b[Cc]orrupt|[Dd]amaged|decod(?:e|ing) failed|[Ff]ailed to decode|[Ii]nvalid data|[Ii]llegal|"
        r"[Oo]verread|bitstream error|wrong picture header|picture header|buffer exhausted",
        Part.UNKNOWN,
    ),
)  # fmt: skip
"""The kinds, the first that fits is meant."""
UNKNOWN = MessageKind("unknown", "", Part.UNKNOWN, Confirmed.BY_FRAMES)
_PATTERNS = tuple((re.compile(kind.says), kind) for kind in MESSAGES)


def kind_of(level: str, message: str) -> MessageKind | None:
    """Return the kind of a message of a demuxer or decoder; None: it says nothing of damage."""
    for pattern, kind in _PATTERNS:
        if level in kind.levels and pattern.search(message):
            return kind
    return UNKNOWN if level in UNKNOWN.levels else None
