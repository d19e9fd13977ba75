"""Count the packets that a file really contains, whatever its header says.

ffprobe reads the whole file and lists each packet; here they are summed per stream, in bounded
memory. Packets that an edit list hides (flag `D`) are counted separately, as no player shows them.

ffprobe prints a line for each packet, then a line for each stream, but versions differ: up to 5.1 a
packet with side data (the priming of AAC, every packet of a TS) ends its line early, and its hash
follows on a line of its own; newer ones add an empty field instead. A stream of a program is also
listed with the program, there without a line break after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from distconv_engine.failures import EngineFault
from distconv_engine.ffmpeg.stderr import Diagnosis
from distconv_engine.media.frame_times import Budget, FrameTimes
from distconv_engine.media.packet_hashes import HASH, PacketHashes
from distconv_engine.media.zero_runs import ZeroRuns

PACKET_ENTRIES = "packet=stream_index,pts,pts_time,dts_time,duration_time,size,pos,flags"
_HASHES = ",data_hash:stream=index,extradata_hash"
_FIELDS = 8
"""Of a packet's line, up to its flags."""
_HASH = re.compile(rf"\b{HASH}:([0-9a-f]+)")
_STREAM = re.compile(r"\d+(?:,|$)")
JUMP_S = 10.0
"""A longer gap in time stamps is a jump of the clock, not missing content (ffmpeg's threshold)."""
PRIMING_S = 0.15
"""The most that an audio encoder inserts in front for players to skip: HE-AAC's 5,186 samples."""
Edit = Literal["head", "inside"]
GAP_S = 0.06
"""A longer silence between two packets that is worth a word if a source is damaged."""
_GAPS_MAX = 20
BACK_S, BACK_PACKETS = 1.0, 4
"""A decoding time earlier by this much begins another recording; less is only a muxer's disorder."""


@dataclass(slots=True)
class StreamPackets:
    """What one stream really contains."""

    count: int = 0
    hidden: int = 0
    """Of these, packets that an edit list hides."""
    hidden_s: float = 0.0
    cut: bool = False
    """Whether packets are hidden between others that are shown."""
    corrupt: int = 0
    corrupt_s: float | None = None
    """The time of the first corrupt packet."""
    corrupt_end_byte: int = 0
    """Where the last of the corrupt packets ends in the file."""
    empty: int = 0
    """Packets without a byte: the picture before is repeated."""
    before_key: int = 0
    """Packets before the first key frame."""
    key_s: float | None = None
    """The earliest time from the first key frame on."""
    gaps: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Time and length of the first gaps of `GAP_S` and more."""
    gap_s: float = 0.0
    """The longest time between the end of a packet and the beginning of the next."""
    total_bytes: int = 0
    first_s: float | None = None
    end_s: float | None = None
    total_s: float = 0.0
    """Sum of the durations; better than the span where time stamps jump."""
    jumps: int = 0
    back: tuple[float, float] | None = None
    """The times from which and to which its clock first went back."""
    zeroed_s: float | None = None
    """The time of the first packet with such a run."""
    zeroed: int = 0
    """Packets with a long run of zero bytes, which compressed video never has."""
    times: FrameTimes = field(default_factory=FrameTimes, compare=False)
    """When each packet is shown that a player shows."""
    _has_key: bool = False
    _next_s: float | None = None
    _hidden_first: int | None = None
    """How many packets were hidden before the first that is shown."""
    _last_s: float | None = None
    _last_dts_s: float | None = None

    @property
    def shown(self) -> int:
        """Packets that a player would show."""
        return self.count - self.hidden

    @property
    def edit(self) -> Edit | None:
        """Where an edit list hides audible content, which an encoder's priming is not."""
        if self.cut:
            return "inside"
        return "head" if self.hidden_s > PRIMING_S else None

    @property
    def span_s(self) -> float:
        """The time from the start of the first packet to the end of the last."""
        if self.first_s is None or self.end_s is None:
            return 0.0
        return self.end_s - self.first_s

    def add(
        self,
        pts_s: float | None,
        duration_s: float,
        size: int,
        flags: str,
        dts_s: float | None = None,
        *,
        ticks: int | None = None,
    ) -> None:
        """Count one packet; `ticks` is its `pts_s` on the stream's own clock."""
        time_s = dts_s if pts_s is None else pts_s
        self.count += 1
        self.total_bytes += size
        self.corrupt += "C" in flags
        if "C" in flags and self.corrupt_s is None:
            self.corrupt_s = time_s
        self._has_key = self._has_key or "K" in flags
        if "D" in flags:
            self.hidden += 1
            self.hidden_s += duration_s
            return
        if self._hidden_first is None:
            self._hidden_first = self.hidden
        self.cut = self.cut or self.hidden > self._hidden_first
        self.total_s += duration_s
        self.empty += size == 0
        self.before_key += not self._has_key
        went_back = dts_s is not None and self._goes_back(dts_s, duration_s)
        self.times.add(ticks, clock_restarts=went_back)
        if time_s is None:
            return
        if self._has_key and (self.key_s is None or time_s < self.key_s):
            self.key_s = time_s
        self._measure_gap(time_s if dts_s is None else dts_s, duration_s)
        if went_back or (self._last_s is not None and abs(time_s - self._last_s) > JUMP_S):
            self.jumps += 1
        self._last_s = time_s
        if self.first_s is None or time_s < self.first_s:
            self.first_s = time_s
        if self.end_s is None or time_s + duration_s > self.end_s:
            self.end_s = time_s + duration_s

    def _measure_gap(self, time_s: float, duration_s: float) -> None:
        if self._next_s is not None:
            gap_s = time_s - self._next_s
            self.gap_s = max(self.gap_s, gap_s)
            if gap_s >= GAP_S and len(self.gaps) < _GAPS_MAX:
                self.gaps.append((self._next_s, gap_s))
        self._next_s = time_s + duration_s

    def _goes_back(self, dts_s: float, duration_s: float) -> bool:
        """Whether the clock restarts, as opposed to a muxer's disorder."""
        last_s, self._last_dts_s = self._last_dts_s, dts_s
        if last_s is None or last_s - dts_s <= max(BACK_S, BACK_PACKETS * duration_s):
            return False
        self.back = self.back or (last_s, dts_s)
        return True


@dataclass(slots=True)
class PacketScan:
    """All streams of one file."""

    streams: dict[int, StreamPackets] = field(default_factory=dict[int, StreamPackets])
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    exit_code: int = 0
    end_byte: int = 0
    """Where the last packet ends in the file."""
    can_flag_corrupt: bool = field(default=False, compare=False)
    """Whether this ffprobe's flags have a place for corrupt packets; those before 6 have none."""

    def of(self, index: int) -> StreamPackets:
        """Return the count of one stream; an empty one when it has no packet."""
        return self.streams.get(index) or StreamPackets()

    @property
    def end_s(self) -> float | None:
        """Where the last packet of any stream ends."""
        ends = [stream.end_s for stream in self.streams.values() if stream.end_s is not None]
        return max(ends, default=None)


class PacketTable:
    """Reads ffprobe's table of packets and streams, of any version, line by line.

    Args:
        zero_runs: where the file has runs of zero bytes.
        suspects: the streams in which such a run is damage.
        hashes: takes which packets they are, where that is asked.
    """

    def __init__(
        self,
        zero_runs: ZeroRuns | None = None,
        suspects: frozenset[int] = frozenset(),
        hashes: PacketHashes | None = None,
    ) -> None:
        self.scan = PacketScan()
        self._budget = Budget()
        self._zeros, self._suspects, self._sums = zero_runs, suspects, hashes
        self._unhashed: tuple[int, int] | None = None
        """Stream and size of the packet whose hash has not come yet."""
        self._extradata: dict[int, str] = {}
        self._strange: str | None = None
        """The first line that is none of those that ffprobe is known to print."""

    def line(self, line: str) -> None:
        """Take the next line."""
        fields = line.split(",", _FIELDS)
        if len(fields) >= _FIELDS and fields[0].isdigit():
            self.packet(fields)
        elif not fields[0]:
            self._take_hash(line)  # side data has ended the packet's line early
        elif _STREAM.match(line):
            self._take_stream(int(fields[0]), line)
        elif self._strange is None:
            self._strange = line

    def close(self) -> None:
        """Take note that no line follows; raises `EngineFault` if one could not be read."""
        if self._strange is not None:
            raise EngineFault(
                f"This engine's ffprobe printed an unknown kind of line: {self._strange[:100]!r}"
            )
        for stream in self.scan.streams.values():
            stream.times.close()
        if self._sums is not None:
            for index, extradata in self._extradata.items():
                self._sums.of(index).extradata = extradata

    def packet(self, fields: Sequence[str]) -> None:
        """Take a packet: stream, pts in ticks, pts, dts, duration, size, position, flags; its hash may
        follow."""
        index, size, position = int(fields[0]), _integer(fields[5]), _integer(fields[6])
        stream = self.scan.streams.get(index)
        if stream is None:
            stream = StreamPackets(times=FrameTimes(self._budget))
            self.scan.streams[index] = stream
        duration_s = _seconds(fields[4]) or 0.0
        pts_s, dts_s, ticks = _seconds(fields[2]), _seconds(fields[3]), _ticks(fields[1])
        stream.add(pts_s, duration_s, size, fields[7], dts_s, ticks=ticks)
        self.scan.end_byte = max(self.scan.end_byte, position + size)
        self.scan.can_flag_corrupt |= len(fields[7]) > 2
        if "C" in fields[7]:
            stream.corrupt_end_byte = position + size
        if (
            self._zeros is not None
            and index in self._suspects
            and self._zeros.touch(position, size)
        ):
            stream.zeroed += 1
            if stream.zeroed_s is None:
                stream.zeroed_s = pts_s
        self._unhashed = (index, size)
        if len(fields) > _FIELDS:
            self._take_hash(fields[_FIELDS])

    def _take_hash(self, text: str) -> None:
        """Take the hash of the last packet from the rest of its line, or from the line behind it."""
        found = _HASH.search(text)
        if found is None or self._unhashed is None or self._sums is None:
            return
        index, size = self._unhashed
        self._sums.of(index).add(size, found[1])
        self._unhashed = None

    def _take_stream(self, index: int, line: str) -> None:
        """Take a stream's number and the hash of its extradata, if it has any."""
        if index == 0:
            self._extradata.clear()  # what came before was of the programs: the streams begin here
        if found := _HASH.search(line):
            self._extradata[index] = found[1]


def packet_options(*, with_hashes: bool) -> list[str]:
    """Return ffprobe's options for what a `PacketTable` reads."""
    options = ["-hide_banner", "-loglevel", "repeat+level+warning"]
    options += ["-show_data_hash", HASH] if with_hashes else []
    entries = PACKET_ENTRIES + (_HASHES if with_hashes else "")
    return [*options, "-show_entries", entries, "-of", "csv=p=0"]


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # `N/A`


def _ticks(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdigit() else None


def _integer(text: str) -> int:
    return int(text) if text.isdigit() else 0
