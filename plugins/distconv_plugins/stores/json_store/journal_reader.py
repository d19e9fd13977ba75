"""Read a journal: every batch whose checksum holds, and what is missing between them.

Rules:

- A line is valid if its size and its checksum are right, if it is of this journal, and if its number is
  higher than that of the batch before. A number that is left out is a batch that was lost.
- An invalid line ends nothing: the valid lines behind it are read. If a damaged line break has joined
  lines, each of them counts by itself.
- Invalid bytes at the end, with nothing valid behind them, are what a crash has left of a batch that
  was never acknowledged. But a crash leaves a line that ends early, or in which blocks are zeros. A whole
  line without either was durable, so the disk has damaged it.
- What a lost batch has changed is read from what is left of its line, as far as that is possible.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from distconv_plugins.stores.encoded import BAD_JSON
from distconv_plugins.stores.json_store.journal import FORMAT, Position, decode_line, read_lines
from distconvd.disk import Disk
from distconvd.errors import StoreTooNew
from distconvd.store import TABLES, Change, RecordName, Table

_START = re.compile(rb'\{"crc":"')
_TABLES: dict[bytes, Table] = {table.encode(): table for table in TABLES}
_CHANGED = re.compile(rb'\["(%b)",("(?:[^"\\\n]|\\.){1,600}"),' % b"|".join(_TABLES))
_JOB_ID = re.compile(rb'"job_id":("[^"\\\n]{1,200}")')
"""The job's id is in its records a second time, in case that a key is what was damaged."""


class _Header(msgspec.Struct):
    journal: int
    format: int
    after: tuple[int, int]


class _Batch(msgspec.Struct):
    batch: int
    changes: list[tuple[Table, str, msgspec.Raw]]
    journal: int | None = None
    """Earlier versions left it out."""


_header = msgspec.json.Decoder(_Header)
_batch = msgspec.json.Decoder(_Batch)
_text = msgspec.json.Decoder(str)


class Batch(NamedTuple):
    """A valid batch."""

    number: int
    changes: list[Change]
    size_bytes: int


class Gap(NamedTuple):
    """What is wrong between two valid lines.

    Attributes:
        first: the number of the first missing batch.
        last: that of the last one; less than `first` if there are invalid bytes, but no batch is missing.
        offset: the byte at which it begins.
        names: the records that the missing batches have changed, as far as these can be read.
    """

    first: int
    last: int
    offset: int
    names: tuple[RecordName, ...]


class Invalid:
    """Invalid lines that follow each other.

    Attributes:
        offset: the byte at which they begin.
        size_bytes: how many bytes they are.
        was_durable: whether one is a whole line, which no crash leaves invalid.
    """

    def __init__(self) -> None:
        self.offset: int | None = None
        self.size_bytes = 0
        self.was_durable = False
        self._names: dict[RecordName, None] = {}

    def add(self, offset: int, line: bytes, *, is_whole: bool) -> None:
        """Add a line without its line break."""
        if self.offset is None:
            self.offset = offset
        self.size_bytes += len(line) + is_whole
        self.was_durable = self.was_durable or (is_whole and b"\0" not in line)
        self._names.update(dict.fromkeys(_names_in(line)))

    @property
    def names(self) -> tuple[RecordName, ...]:
        """The records that the lines name."""
        return tuple(self._names)


class JournalReader:
    """Reads journal `number` from `path`, one batch at a time.

    Attributes:
        after: the position in the header; None if the header itself is damaged.
        rest: the invalid bytes at the end; final once `entries` is exhausted.

    Raises:
        StoreTooNew: a newer version wrote it.
    """

    def __init__(self, disk: Disk, path: Path, number: int) -> None:
        self.path = path
        self.after: Position | None = None
        self.rest = Invalid()
        self._number = number
        self._offset = 0
        self._pieces = _pieces(read_lines(disk, path))
        self._read_header()

    def _read_header(self) -> None:
        line, is_whole = next(self._pieces, (b"", False))
        payload = decode_line(line) if is_whole else None
        self.after = None if payload is None else _after(self.path, payload, self._number)
        if self.after is None:
            self.rest.add(0, line, is_whole=is_whole)
        self._offset = len(line) + is_whole

    def entries(self) -> Iterator[Batch | Gap]:
        """Yield the batches in order, and before a batch the gap that it follows, if there is one."""
        last = 0
        for piece, is_whole in self._pieces:
            batch = self._batch(piece, last) if is_whole else None
            if batch is None:
                self.rest.add(self._offset, piece, is_whole=is_whole)
            else:
                if self.rest.size_bytes or batch.number != last + 1:
                    offset = self._offset if self.rest.offset is None else self.rest.offset
                    yield Gap(last + 1, batch.number - 1, offset, self.rest.names)
                    self.rest = Invalid()
                yield batch
                last = batch.number
            self._offset += len(piece) + is_whole

    @property
    def lost_the_last(self) -> bool:
        """Whether what is invalid at the end was a durable batch; final once `entries` is exhausted."""
        is_header = self.after is None and not self.rest.names
        return self.rest.was_durable and not is_header

    def _batch(self, line: bytes, last: int) -> Batch | None:
        payload = decode_line(line)
        if payload is None:
            return None
        try:
            batch = _batch.decode(payload)
        except BAD_JSON:
            return None
        if batch.batch <= last or batch.journal not in (None, self._number):
            return None
        changes = [
            Change(table, key, None if bytes(record) == b"null" else bytes(record))
            for table, key, record in batch.changes
        ]
        return Batch(batch.batch, changes, len(line) + 1)


def _pieces(lines: Iterator[tuple[bytes, bool]]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line; if it is invalid, the valid lines that are joined in it."""
    for line, is_whole in lines:
        if decode_line(line) is not None:
            yield line, is_whole
            continue
        starts = [match.start() for match in _START.finditer(line) if match.start()]
        begins = [0, *starts]
        for begin, end in zip(begins, [*starts, len(line)], strict=True):
            piece = line[begin:end]
            is_last = end == len(line)
            if decode_line(piece[:-1]) is not None:  # its line break has become another byte
                yield piece[:-1], True
            else:
                yield piece, is_whole or not is_last


def _after(path: Path, payload: bytes, number: int) -> Position | None:
    """Return the header's position; None if it is another journal's or not a header."""
    try:
        header = _header.decode(payload)
    except BAD_JSON:
        return None
    if header.format > FORMAT:
        raise StoreTooNew(
            f"the journal {path} has format {header.format}, and this version supports up to "
            f"{FORMAT}; start the newer version that wrote it, or restore a backup of this one's"
        )
    return Position(*header.after) if header.journal == number else None


def _names_in(line: bytes) -> Iterator[RecordName]:
    """Yield the records that a damaged line of a batch names."""
    for match in _CHANGED.finditer(line):
        key = _decoded(match[2])
        if key is not None:
            yield RecordName(_TABLES[match[1]], key)
    for match in _JOB_ID.finditer(line):
        job_id = _decoded(match[1])
        if job_id is not None:
            yield RecordName("jobs", job_id)


def _decoded(text: bytes) -> str | None:
    try:
        return _text.decode(text)
    except BAD_JSON:
        return None
