"""Read from ffmpeg's stderr: damage in the source, a full disk, and the final counts.

ffmpeg exits 0 on a source cut to 60 %, so its exit code proves nothing; its log lines do. With
`-loglevel repeat+level+verbose` every line names its level and its component. An error from a
demuxer or decoder is damage in what was read; an error from an encoder, filter or muxer is this
engine's fault. What the program itself lacks is in `_LACKS`. Errors that occur with sound files are in `HARMLESS`, each with its reason; warnings
that prove damage are in `DAMAGE_WARNINGS`.
"""

import re
from collections import deque
from dataclasses import dataclass, field

from distconv_engine.ffmpeg.containers import MUXER_NAMES

LOG_LEVEL = "repeat+level+verbose"
TAIL_LINES = 60
_OUT_OF_MEMORY = re.compile(r"[Cc]annot allocate memory|[Oo]ut of memory")
_LOADER_OUT_OF_MEMORY = re.compile(r"failed to map segment from shared|cannot map zero-fill pages")
"""Said of a program of shared libraries, as a distribution's ffmpeg is, before it begins."""
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
DAMAGE_MAX = 20

_LINE = re.compile(r"^((?:\[[^\]]+ @ 0x[0-9a-fA-F]+\] )*)\[(\w+)\] ?(.*)$")
_COMPONENT = re.compile(r"\[([^\]]+) @ 0x[0-9a-fA-F]+\]")
_ALARMS = frozenset({"error", "fatal", "panic"})
_WRITING_SIDE = re.compile(
    r"^(?:out#|vost#|aost#|sost#|enc:|af#|vf#|graph|Parsed_|auto_|fc#|lib(?!dav1d)|AVFilterGraph|"
    r"null$|tee$|sws|swscaler|SWR|\w+_(?:nvenc|qsv|vaapi|videotoolbox)$|"
    rf"(?:{'|'.join(sorted(MUXER_NAMES))})$)"
)
"""The components that filter, encode and mux. (A demuxer is `in#0/matroska,webm`.)"""

_MATROSKA = re.compile(r"(?:in#\d+/)?matroska")
"""The demuxer, which logs for itself or for the input that it reads."""

_HARMLESS_WORDS = (
    r"co located POCs unavailable",  # open GOP at the start of a recording
    # Logged for most recordings that begin at an open GOP and are whole. For a stream from which one
    # picture was removed it is the only message in one case of ten; in seven there is none.
    r"mmco: unref short failure",
    r"[Uu]nable to (?:decode|parse) APP fields",  # odd JPEG headers in cover art
    r"could not find corresponding trex",  # fragments of a track that is not used
    r"non monotonically increasing dts",  # concerns only the null muxer
    r"Could not update timestamps for (?:skipped|discarded) samples",
    r"Referenced QT chapter track not found",
    r"Unsupported channel layout",  # from an encoder, which logs under its decoder's name
)
HARMLESS = re.compile("|".join(_HARMLESS_WORDS))
DAMAGE_WARNINGS = re.compile(
    r"Packet corrupt \(|corrupt input packet|corrupt decoded frame|PES packet size mismatch|"
    r"concealing \d+ DC"
)
_PACKED = "decompression of Matroska tracks"
_LACKS = (
    (re.compile(r"no decoder found for: (\w+)"), "decoder for {}"),
    # The demuxer goes on and returns compressed packets, which no decoder understands.
    (re.compile(r"Unsupported encoding type"), _PACKED),
)
"""What a build of ffmpeg says that lacks something, and in words what it lacks."""
_READ = re.compile(
    r"Input stream #(\d+):(\d+) \((\w+)\): (\d+) packets read \((\d+) bytes\); "
    r"(?:(\d+) frames decoded(?:; (\d+) decode errors)?)?"
)
_WRITTEN = re.compile(
    r"Output stream #(\d+):(\d+) \((\w+)\): (?:(\d+) frames encoded(?: \(\d+ samples\))?; )?"
    r"(\d+) packets muxed"
)


@dataclass(frozen=True, slots=True)
class ReadCount:
    """What ffmpeg counted in one input stream."""

    kind: str
    packets: int
    frames: int | None
    errors: int


@dataclass(frozen=True, slots=True)
class WriteCount:
    """What ffmpeg counted in one output stream; `frames` is None for a copied one."""

    kind: str
    frames: int | None
    packets: int


@dataclass(slots=True)
class Diagnosis:
    """What is kept of one run's stderr, within bounds."""

    damage: list[str] = field(default_factory=list[str])
    """Lines that prove damage in what was read, the first `DAMAGE_MAX` of them."""
    lacks: str | None = None
    """What this build of the program lacks to read all of it; no fault of what was read."""
    disk_full: bool = False
    out_of_memory: bool = False
    read: dict[int, ReadCount] = field(default_factory=dict[int, ReadCount])
    """By stream number of the first input."""
    written: dict[int, WriteCount] = field(default_factory=dict[int, WriteCount])
    """By stream number of the first output."""
    _tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=TAIL_LINES))

    def line(self, text: str) -> None:
        """Parse one line."""
        match = _LINE.match(text)
        if match is None:
            self._tail.append(text)
            self.out_of_memory |= _LOADER_OUT_OF_MEMORY.search(text) is not None
            return
        components, level, message = _COMPONENT.findall(match[1]), match[2], match[3]
        if level == "verbose":
            self._count(message)
            return
        self._tail.append(text)
        self.disk_full = self.disk_full or _DISK_FULL.search(message) is not None
        self.out_of_memory = self.out_of_memory or _OUT_OF_MEMORY.search(message) is not None
        lack = _lack_of(message)
        if lack is not None:
            self.lacks = self.lacks or lack
        elif is_damage(components, level, message) and not self._is_of_packed(components):
            self.damage += [f"{components[-1]}: {message}" if components else message]
            del self.damage[DAMAGE_MAX:]

    @property
    def is_packed(self) -> bool:
        """Whether it read packets that it could not decompress: their content is unknown."""
        return self.lacks == _PACKED

    @property
    def tail(self) -> str:
        """The last lines, for the report of a failure."""
        return "\n".join(self._tail)

    @property
    def decode_errors(self) -> int:
        """Frames that decoders gave up on, over all streams."""
        return sum(count.errors for count in self.read.values())

    def _is_of_packed(self, components: list[str]) -> bool:
        """Whether a line is of a decoder that was given packets in their compressed form."""
        return self.is_packed and bool(components) and not _MATROSKA.match(components[-1])

    def _count(self, message: str) -> None:
        if found := _READ.search(message):
            if int(found[1]) == 0:
                frames = int(found[6]) if found[6] else None
                counts = ReadCount(found[3], int(found[4]), frames, int(found[7] or 0))
                self.read[int(found[2])] = counts
        elif (found := _WRITTEN.search(message)) and int(found[1]) == 0:
            frames = int(found[4]) if found[4] else None
            self.written[int(found[2])] = WriteCount(found[3], frames, int(found[5]))


def _lack_of(message: str) -> str | None:
    """Return what the program says that it lacks, or None."""
    for pattern, words in _LACKS:
        if found := pattern.search(message):
            return words.format(*found.groups())
    return None


def is_damage(components: list[str], level: str, message: str) -> bool:
    """Whether this line proves that what was read is damaged."""
    if HARMLESS.search(message):
        return False
    if DAMAGE_WARNINGS.search(message):
        return True
    if level not in _ALARMS or not components:
        return False
    return not any(_WRITING_SIDE.match(component) for component in components)
