"""Find fragments of an MP4 that are missing, duplicated or out of order.

A fragment (`moof`) has a number and, for each track, the time at which it begins. The standard
requires only that numbers rise, and a live recording may pause; so a fragment is missing only if
both show it: the numbers are not consecutive, and the track does not continue where it ended. For
fragments that state no time, only what describes the whole file can be checked, if it is present:

- `sidx`, an index before what it indexes: how many bytes there must be.
- `mehd`: the duration of all fragments.
- `mfra`, an index at the end: where fragments begin. If some of these places are wrong, bytes
  between them are missing; if all are, its writer counted from another position.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from distconv_engine.failures import InputFault, cut_short
from distconv_engine.media.structure.concatenated import two_in_one

READ_BYTES_MAX = 4_000_000
"""A longer box is not read."""
_BASE, _DESCRIPTION, _DURATION = 0x01, 0x02, 0x08
"""Flags of the fields that a `tfhd` has."""
_OFFSET, _FIRST_FLAGS, _DURATIONS = 0x01, 0x04, 0x100
_EACH = (0x100, 0x200, 0x400, 0x800)
"""Flags of the fields that a `trun` has, for itself and for each sample: four bytes each."""
_SHORT_S, _SHORT_SHARE = 0.3, 0.005
"""`mehd` may exceed the fragments by this much, because of edit lists and rounding."""
_NESTED = frozenset({b"trak", b"mdia", b"mvex"})


@dataclass(slots=True)
class _Track:
    timescale: int = 0
    """Units in a second."""
    default: int | None = None
    """Duration of a sample for which the fragment states none."""
    end: int | None = None
    """The time at which its last fragment ended, in its own units; None: unknown."""
    step: int = 0
    """Duration of the longest sample in that fragment: a gap below half of it is rounding."""
    number: int | None = None
    breaks: int = 0
    """The number of breaks in the numbering up to that fragment."""


@dataclass(slots=True)
class Fragments:
    """The fragments of one file, in the file's order."""

    tracks: dict[int, _Track] = field(default_factory=dict[int, _Track])
    starts: set[int] = field(default_factory=set[int])
    offsets: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    """By track: the places at which fragments begin according to the index at the end."""
    number: int | None = None
    breaks: int = 0
    has_risen: bool = False
    """Whether a number was one more than the one before: fragments are numbered consecutively."""
    headers: list[int] = field(default_factory=list[int])
    """Where each `moov` begins."""
    timescale: int = 0
    stated: int = 0
    """The duration of all fragments according to `mehd`, in units of the file."""

    def header(self, moov: bytes, start: int) -> None:
        """Take the content of the `moov` at byte `start`; only the first one is used."""
        self.headers.append(start)
        if len(self.headers) == 1:
            self._add_header(moov, _Track())

    def _add_header(self, content: bytes, track: _Track) -> None:
        for kind, body in _boxes(content):
            if kind in _NESTED:
                self._add_header(body, _Track() if kind == b"trak" else track)
            elif kind == b"tkhd":
                self.tracks[_integer(body, 20 if body[:1] == b"\x01" else 12)] = track
            elif kind == b"mdhd":
                track.timescale = _integer(body, 20 if body[:1] == b"\x01" else 12)
            elif kind == b"mvhd":
                self.timescale = _integer(body, 20 if body[:1] == b"\x01" else 12)
            elif kind == b"mehd":
                self.stated = _wide(body, 4)
            elif kind == b"trex":
                self._track(_integer(body, 4)).default = _integer(body, 12) or None

    def _track(self, identity: int) -> _Track:
        return self.tracks.setdefault(identity, _Track())

    def add(self, moof: bytes, start: int) -> None:
        """Take the content of the `moof` at byte `start`; raises `InputFault` if one is missing."""
        self.starts.add(start)
        for kind, body in _boxes(moof):
            if kind == b"mfhd" and len(body) >= 8:
                number = _integer(body, 4)
                if self.number is not None:
                    self.breaks += number - self.number not in (0, 1)
                    self.has_risen = self.has_risen or number - self.number == 1
                self.number = number
            elif kind == b"traf":
                self._add_track(list(_boxes(body)), start)

    def _add_track(self, boxes: list[tuple[bytes, bytes]], start: int) -> None:
        header = next((body for kind, body in boxes if kind == b"tfhd"), b"")
        if len(header) < 8:
            return
        track = self._track(_integer(header, 4))
        begin = next((_wide(body, 4) for kind, body in boxes if kind == b"tfdt"), None)
        if begin is not None and track.end is not None:
            self._compare(track, begin, track.end, start)
        default = _default(header) or track.default
        runs = [_duration(body, default) for kind, body in boxes if kind == b"trun"]
        known = [run for run in runs if run is not None]
        is_known = begin is not None and len(known) == len(runs)
        track.end = (begin or 0) + sum(length for length, _ in known) if is_known else None
        track.step = max((longest for _, longest in known), default=0)
        track.breaks, track.number = self.breaks, self.number

    def _compare(self, track: _Track, begin: int, end: int, start: int) -> None:
        is_again = self.has_risen and self.number == track.number and begin < end
        if 2 * abs(begin - end) <= track.step or not (self.breaks > track.breaks or is_again):
            return
        if len(self.headers) > 1:
            raise two_in_one(self.headers[-1])
        raise InputFault(
            f"The source is damaged: the fragment at byte {start} has the number {self.number} and "
            f"begins at {begin}, the one before it has the number {track.number} and ends at {end}: "
            "a fragment is missing or out of order."
        )

    def index(self, mfra: bytes) -> None:
        """Take the content of the index at the end."""
        for kind, body in _boxes(mfra):
            if kind == b"tfra" and len(body) >= 16:
                self.offsets.setdefault(_integer(body, 4), []).extend(_offsets(body))

    def close(self) -> None:
        """Compare the fragments with the stated totals; raises `InputFault`."""
        for offsets in self.offsets.values():
            wrong = [place for place in offsets if place not in self.starts]
            if wrong and len(wrong) < len(offsets):
                raise InputFault(
                    f"The source is damaged: its index (mfra) has a fragment at byte {wrong[0]}, "
                    "but none begins there: bytes are missing or out of order."
                )
        self._check_duration_stated()

    def _check_duration_stated(self) -> None:
        begun = [track for track in self.tracks.values() if track.number is not None]
        if not (self.stated and self.timescale and begun):
            return
        ends = [(track.end, track.timescale) for track in begun if track.end and track.timescale]
        stated_s = self.stated / self.timescale
        longest_s = max((end / timescale for end, timescale in ends), default=0.0)
        if len(ends) < len(begun):
            return  # one track has no known end
        if longest_s < stated_s - max(_SHORT_S, stated_s * _SHORT_SHARE):
            raise InputFault(
                f"The source is cut: its header (mehd) says {stated_s:.2f} s, its fragments end at "
                f"{longest_s:.2f} s."
            )


def check_index(sidx: bytes, end: int, size: int) -> None:
    """Compare the content of a `sidx` that ends at byte `end` with a file of `size` bytes."""
    width = 8 if sidx[:1] == b"\x01" else 4
    at = 12 + 2 * width
    if len(sidx) < at + 4:
        return
    count = int.from_bytes(sidx[at + 2 : at + 4], "big")
    offset = int.from_bytes(sidx[12 + width : at], "big")
    pieces = sidx[at + 4 : at + 4 + 12 * count]
    sizes = [_integer(pieces, n) & 0x7FFFFFFF for n in range(0, len(pieces) - 11, 12)]
    needed = end + offset + sum(sizes)
    if any(sizes) and needed > size:
        raise cut_short("what its index (sidx) lists", needed, size)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if length < 8:
            return
        yield kind, content[at + 8 : at + length]
        at += length


def _integer(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def _wide(body: bytes, at: int) -> int:
    """Read a number that has 8 bytes in version 1 of a box, else 4."""
    return int.from_bytes(body[at : at + (8 if body[:1] == b"\x01" else 4)], "big")


def _offsets(tfra: bytes) -> Iterator[int]:
    wide = 8 if tfra[:1] == b"\x01" else 4
    sizes = _integer(tfra, 8)
    step = 2 * wide + sum(1 + ((sizes >> shift) & 3) for shift in (0, 2, 4))
    for number in range(min(_integer(tfra, 12), (len(tfra) - 16) // step)):
        at = 16 + number * step + wide
        yield int.from_bytes(tfra[at : at + wide], "big")


def _default(tfhd: bytes) -> int | None:
    """Return the duration that the fragment's header gives its samples."""
    flags = int.from_bytes(tfhd[1:4], "big")
    at = 8 + 8 * bool(flags & _BASE) + 4 * bool(flags & _DESCRIPTION)
    return _integer(tfhd, at) if flags & _DURATION else None


def _duration(trun: bytes, default: int | None) -> tuple[int, int] | None:
    """Return the duration of a run and of its longest sample; None: it is not stated."""
    flags, count = int.from_bytes(trun[1:4], "big"), _integer(trun, 4)
    if not flags & _DURATIONS:
        return None if default is None else (default * count, default)
    at = 8 + 4 * bool(flags & _OFFSET) + 4 * bool(flags & _FIRST_FLAGS)
    width = 4 * sum(bool(flags & each) for each in _EACH)
    if at + width * count > len(trun):
        return None
    each = [_integer(trun, n) for n in range(at, at + width * count, width)]
    return sum(each), max(each, default=0)
