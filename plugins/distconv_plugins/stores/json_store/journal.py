"""The journal of the json store: a text file to which each batch adds one line.

A line is a JSON object that opens with the checksum and the size of what follows:

    {"crc":"6b0fd5a2","size":46,"journal":7,"format":1,"after":[6,112]}
    {"crc":"1c291ca3","size":61,"batch":1,"changes":[["jobs","1754_1",{"job_id":"1754_1"}]]}

The first says which journal this is and where it goes on: after so many batches of that earlier
one. A change is `[table, key, record]`, with `null` for a delete.

Rules: a line counts when its size, its checksum and its number are right. The first that does not
ends the journal. Nothing good after it means a write that a crash cut short, never acknowledged,
and it is cut off; a good line after it means that the disk damaged what had been durable.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from distconv_plugins.stores.encoded import BAD_JSON, encoded_key
from distconvd.disk import Disk, DiskFile, write_all
from distconvd.errors import StoreTooNew
from distconvd.store import Change, Table

FORMAT = 1
_READ_BYTES = 1 << 20
_START = re.compile(rb'\{"crc":"')
_OPENING = len(b'{"crc":"01234567","size":')


class Position(NamedTuple):
    """So many batches of that journal; what comes after it is newer."""

    journal: int
    batches: int


class _Header(msgspec.Struct):
    journal: int
    format: int
    after: tuple[int, int]


class _Batch(msgspec.Struct):
    batch: int
    changes: list[tuple[Table, str, msgspec.Raw]]


_header = msgspec.json.Decoder(_Header)
_batch = msgspec.json.Decoder(_Batch)


def encode_line(payload: bytes) -> bytes:
    """Put checksum and size before the inside of an object, `payload`, that ends with its brace."""
    return b'{"crc":"%08x","size":%d,%b\n' % (zlib.crc32(payload), len(payload), payload)


def decode_line(line: bytes) -> bytes | None:
    """Return the object of a line (without its line break), or None where it is damaged."""
    comma = line.find(b",", _OPENING)
    payload = line[comma + 1 :]
    return b"{" + payload if comma > 0 and encode_line(payload)[:-1] == line else None


def contains_valid_line(line: bytes) -> bool:
    """Tell whether a damaged line has a good one at its end: the line break between is lost."""
    starts = (match.start() for match in _START.finditer(line, 1))
    return any(decode_line(line[start:]) is not None for start in starts)


def encode_batch(number: int, changes: Sequence[Change]) -> bytes:
    """Return the line of one batch, whose records are checked and on one line each."""
    parts: list[bytes] = []
    for table, key, record in changes:
        value = b"null" if record is None else record
        parts.append(b'["%b",%b,%b]' % (table.encode(), encoded_key(key), value))
    return encode_line(b'"batch":%d,"changes":[%b]}' % (number, b",".join(parts)))


def encode_header(number: int, after: Position) -> bytes:
    """Return the first line of journal `number`."""
    return encode_line(b'"journal":%d,"format":%d,"after":[%d,%d]}' % (number, FORMAT, *after))


class JournalReader:
    """Reads journal `number` from `path`, one batch at a time.

    Attributes, of which the last three are final once `batches` has ended by itself:
        after: what the header says; None when the header itself is damaged.
        good_bytes: how far the file is whole.
        torn_bytes: what follows that.
        damaged: good lines follow a bad one.

    Raises:
        StoreTooNew: a newer version wrote it.
    """

    def __init__(self, disk: Disk, path: Path, number: int) -> None:
        self.path = path
        self.after: Position | None = None
        self.good_bytes = 0
        self.torn_bytes = 0
        self.damaged = False
        self._number = number
        self._lines = read_lines(disk, path)
        self._read_header()

    def _read_header(self) -> None:
        line, ended = next(self._lines, (b"", False))
        payload = decode_line(line) if ended else None
        self.after = None if payload is None else _after(self.path, payload, self._number)
        self._count(line, ended, good=self.after is not None)

    def batches(self) -> Iterator[list[Change]]:
        """Yield the batches up to the first bad line, then judge what is left."""
        number = 0
        for line, ended in self._lines:
            payload = decode_line(line) if ended else None
            changes = None
            if payload is not None and not self.torn_bytes:
                changes = _changes(payload, number + 1)
            if changes is None:
                self.damaged = self.damaged or payload is not None or contains_valid_line(line)
            self._count(line, ended, good=changes is not None)
            if changes is not None:
                number += 1
                yield changes

    def _count(self, line: bytes, ended: bool, *, good: bool) -> None:
        size = len(line) + ended
        if good:
            self.good_bytes += size
        else:
            self.torn_bytes += size


def _after(path: Path, payload: bytes, number: int) -> Position | None:
    """Return what the header says, or None when it is another journal's or no header."""
    try:
        header = _header.decode(payload)
    except BAD_JSON:
        return None
    if header.format > FORMAT:
        raise StoreTooNew(
            f"the journal {path} has format {header.format}, and this version knows up to "
            f"{FORMAT}; start the newer version that wrote it, or restore a backup of this one's"
        )
    return Position(*header.after) if header.journal == number else None


def _changes(payload: bytes, number: int) -> list[Change] | None:
    try:
        batch = _batch.decode(payload)
    except BAD_JSON:
        return None
    if batch.batch != number:
        return None
    return [
        Change(table, key, None if bytes(record) == b"null" else bytes(record))
        for table, key, record in batch.changes
    ]


class Journal:
    """A journal that is open for appending.

    Error handling: when `append` raises, the batch is not in the file: it is cut back to the last
    whole line. Where even that fails, or a sync failed (after which nobody knows what the disk
    holds, not even of the block that the batch shares with the one before), the journal is
    `is_poisoned`, and takes nothing more: what it held has to be written anew somewhere else.
    """

    def __init__(self, file: DiskFile, number: int, size_bytes: int) -> None:
        self.number = number
        self.batches = 0
        self.size_bytes = size_bytes
        self.is_poisoned = False
        self._file = file

    @classmethod
    def create(cls, disk: Disk, path: Path, number: int, after: Position) -> "Journal":
        """Make a journal, durably; when it raises, what is left of it is no good journal."""
        file = disk.open(path, "create")
        try:
            header = encode_header(number, after)
            write_all(file, header)
            file.fsync()
            disk.fsync_dir(path.parent)
        except BaseException:
            file.close()
            raise
        return cls(file, number, len(header))

    @property
    def position(self) -> Position:
        """Where the next batch goes."""
        return Position(self.number, self.batches)

    def append(self, changes: Sequence[Change]) -> int:
        """Make a batch durable, and return how many bytes it took."""
        line = encode_batch(self.batches + 1, changes)
        try:
            write_all(self._file, line)
        except BaseException:
            self._cut_back()
            raise
        try:
            self._file.fdatasync()
        except BaseException:
            self.is_poisoned = True
            self._cut_back()
            raise
        self.batches += 1
        self.size_bytes += len(line)
        return len(line)

    def _cut_back(self) -> None:
        try:
            self._file.truncate(self.size_bytes)
        except OSError:
            # The error that led here is the one to tell; this one is remembered.
            self.is_poisoned = True

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def sync_file(disk: Disk, path: Path) -> None:
    """Sync a file that is there."""
    file = disk.open(path, "append")
    try:
        file.fsync()
    finally:
        file.close()


def read_lines(disk: Disk, path: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of a file, and for each whether its line break is there."""
    file = disk.open(path, "read")
    try:
        rest = b""
        while chunk := file.read(_READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line, True
        if rest:
            yield rest, False
    finally:
        file.close()
