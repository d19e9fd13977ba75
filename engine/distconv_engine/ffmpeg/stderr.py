"""Read from ffmpeg's stderr: damage in the source, a full disk, and the final counts.

ffmpeg exits 0 on a source cut to 60 %, so its exit code proves nothing; its log lines do. With
`-loglevel repeat+level+verbose` every line names its level and its component. An error from a
demuxer or decoder concerns what was read; an error from an encoder, filter or muxer is this engine's
fault. What the program itself lacks is in `_LACKS`; what a message about the source is worth is in the table `messages`.
"""

import re
from collections import Counter, deque
from dataclasses import dataclass, field

from distconv_engine.ffmpeg.containers import MUXER_NAMES
from distconv_engine.ffmpeg.messages import Confirmed, MessageKind, kind_of

LOG_LEVEL = "repeat+level+verbose"
TAIL_LINES = 60
_OUT_OF_MEMORY = re.compile(r"[Cc]annot allocate memory|[Oo]ut of memory|[Cc]ould not allocate")
_LOADER_OUT_OF_MEMORY = re.compile(r"failed to map segment from shared|cannot map zero-fill pages")
"""Said of a program of shared libraries, as a distribution's ffmpeg is, before it begins."""
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
DAMAGE_MAX = 20

_LINE = re.compile(r"^((?:\[[^\]]+ @ 0x[0-9a-fA-F]+\] )*)\[(\w+)\] ?(.*)$")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_COMPONENT = re.compile(r"\[([^\]]+) @ 0x[0-9a-fA-F]+\]")
_WRITING_SIDE = re.compile(
    r"^(?:out#|vost#|aost#|sost#|enc:|af#|vf#|graph|Parsed_|auto_|fc#|lib(?!dav1d)|AVFilterGraph|"
    r"null$|tee$|sws|swscaler|SWR|\w+_(?:nvenc|qsv|vaapi|videotoolbox)$|"
    rf"(?:{'|'.join(sorted(MUXER_NAMES))})$)"
)
"""The components that filter, encode and mux. (A demuxer is `in#0/matroska,webm`.)"""

_MATROSKA = re.compile(r"(?:in#\d+/)?matroska")
"""The demuxer, which logs for itself or for the input that it reads."""

_PACKED = "decompression of Matroska tracks"
_LACKS = (
    (re.compile(r"no decoder found for: (\w+)"), "decoder for {}"),
    # The demuxer goes on and returns compressed packets, which no decoder understands.
    (re.compile(r"Unsupported encoding type"), _PACKED),
)
"""What a build of ffmpeg says that lacks something, and in words what it lacks."""
_DECODE_ERROR = re.compile(r"Error while decoding stream #0:(\d+)")
_READ = re.compile(
    r"Input stream #(\d+):(\d+) \((\w+)\): (\d+) packets read \((\d+) bytes\); "
    r"(?:(\d+) frames decoded(?:; (\d+) decode errors)?(?: \((\d+) samples\))?)?"
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
    samples: int | None = None
    """The decoded samples of a channel, of audio."""


@dataclass(frozen=True, slots=True)
class WriteCount:
    """What ffmpeg counted in one output stream; `frames` is None for a copied one."""

    kind: str
    frames: int | None
    packets: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """A message that counts as damage only if something else confirms it."""

    kind: MessageKind
    words: str


@dataclass(slots=True)
class Diagnosis:
    """What is kept of one run's stderr, within bounds."""

    damage: list[str] = field(default_factory=list[str])
    """Lines that prove damage in what was read, the first `DAMAGE_MAX` of them."""
    lacks: str | None = None
    """What this build of the program lacks to read all of it; no fault of what was read."""
    doubts: dict[str, Doubt] = field(default_factory=dict[str, Doubt])
    """The first message of each kind that has to be confirmed, by the kind's name."""
    unconcerned: set[str] = field(default_factory=set[str])
    """The kinds of messages that concern neither picture nor sound."""
    disk_full: bool = False
    out_of_memory: bool = False
    read: dict[int, ReadCount] = field(default_factory=dict[int, ReadCount])
    """By stream number of the first input."""
    written: dict[int, WriteCount] = field(default_factory=dict[int, WriteCount])
    """By stream number of the first output."""
    _errors: Counter[int] = field(default_factory=Counter[int])
    """Decode errors by stream number, as a version before 6 tells them; its last count has none."""
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
        if found := _DECODE_ERROR.search(message):
            self._errors[int(found[1])] += 1
        lack = _lack_of(message)
        kind = kind_of(level, message) if _is_reading(components) else None
        if lack is not None:
            self.lacks = self.lacks or lack
        elif kind is not None and not self._is_of_packed(components):
            self._take(kind, f"{components[-1]}: {message}" if components else message)

    @property
    def is_packed(self) -> bool:
        """Whether it read packets that it could not decompress: their content is unknown."""
        return self.lacks == _PACKED

    @property
    def tail(self) -> str:
        """The last lines, for the report of a failure."""
        return "\n".join(self._tail)

    @property
    def last_words(self) -> str:
        """The most informative line of a failed run, without addresses."""
        messages = [_ADDRESS.sub("", line).strip() for line in self._tail if line.strip()]
        messages = [line for line in messages if not line.endswith("Conversion failed!")]
        errors = [line for line in messages if "[error]" in line or "[fatal]" in line]
        return (errors or messages or [""])[-1]

    @property
    def decode_errors(self) -> int:
        """Frames that decoders gave up on, over all streams."""
        return sum(count.errors for count in self.read.values())

    def _is_of_packed(self, components: list[str]) -> bool:
        """Whether a line is of a decoder that was given packets in their compressed form."""
        return self.is_packed and bool(components) and not _MATROSKA.match(components[-1])

    def _take(self, kind: MessageKind, words: str) -> None:
        if kind.confirmed is Confirmed.NEVER:
            self.unconcerned.add(kind.name)
        elif kind.confirmed is not Confirmed.BY_ITSELF:
            self.doubts.setdefault(kind.name, Doubt(kind, words))
        elif len(self.damage) < DAMAGE_MAX:
            self.damage.append(words)

    def _count(self, message: str) -> None:
        if found := _READ.search(message):
            if int(found[1]) == 0:
                frames = int(found[6]) if found[6] else None
                samples = int(found[8]) if found[8] else None
                errors = max(int(found[7] or 0), self._errors[int(found[2])])
                counts = ReadCount(found[3], int(found[4]), frames, errors, samples)
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


def _is_reading(components: list[str]) -> bool:
    """Whether a message is of a demuxer or decoder, as far as its components show."""
    return bool(components) and not any(_WRITING_SIDE.match(name) for name in components)
