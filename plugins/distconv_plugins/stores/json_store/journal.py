"""Write and read the json store's journal, a text file with a line for each batch.

A line is a JSON object that begins with the checksum and the size of what follows:

    {"crc":"6b0fd5a2","size":46,"journal":7,"format":1,"after":[6,112]}
    {"crc":"1c291ca3","size":61,"batch":1,"changes":[["jobs","1754_1",{"job_id":"1754_1"}]]}

The first line says which journal this is and where it continues: after how many batches of which
earlier one. A change is `[table, key, record]`, with `null` for a delete.

Rules: a line is valid if its size, its checksum and its number are right. The first invalid one
ends the journal. If no valid line follows, a crash interrupted a write that was never
acknowledged, and the rest is cut off; if one does, the disk has damaged what was durable.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from distconv_plugins.stores.encoded import BAD_JSON, encoded_key
from distconvd.disk import Disk, DiskFile, DiskLock, write_all
from distconvd.errors import StoreTooNew
from distconvd.store import Change, Table

FORMAT = 1
_READ_BYTES = 1 << 20
_START = re.compile(rb'\{"crc":"')
_OPENING = len(b'{"crc":"01234567","size":')


class Position(NamedTuple):
    """A place in the sequence of batches: after this many batches of this journal."""

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
    """Return the line of a payload: an object's text without its opening brace."""
    return b'{"crc":"%08x","size":%d,%b\n' % (zlib.crc32(payload), len(payload), payload)


def decode_line(line: bytes) -> bytes | None:
    """Return the object of a line (without its line break); None if it is damaged."""
    comma = line.find(b",", _OPENING)
    payload = line[comma + 1 :]
    return b"{" + payload if comma > 0 and encode_line(payload)[:-1] == line else None


def contains_valid_line(line: bytes) -> bool:
    """Whether a damaged line ends in a valid one, because the line break between them is lost."""
    starts = (match.start() for match in _START.finditer(line, 1))
    return any(decode_line(line[start:]) is not None for start in starts)


def encode_batch(number: int, changes: Sequence[Change]) -> bytes:
    """Return the line of a batch, whose records have been checked and are on one line each."""
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

    Attributes, of which the last three are final once `batches` is exhausted:
        after: the position in the header; None if the header itself is damaged.
        good_bytes: the size of the valid lines at the beginning.
        torn_bytes: the size of what follows them.
        damaged: whether a valid line follows an invalid one.

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
        line, is_whole = next(self._lines, (b"", False))
        payload = decode_line(line) if is_whole else None
        self.after = None if payload is None else _after(self.path, payload, self._number)
        self._count(line, is_whole, good=self.after is not None)

    def batches(self) -> Iterator[list[Change]]:
        """Yield the batches up to the first invalid line, then classify what follows."""
        number = 0
        for line, is_whole in self._lines:
            payload = decode_line(line) if is_whole else None
            changes = None
            if payload is not None and not self.torn_bytes:
                changes = _changes(payload, number + 1)
            if changes is None:
                self.damaged = self.damaged or payload is not None or contains_valid_line(line)
            self._count(line, is_whole, good=changes is not None)
            if changes is not None:
                number += 1
                yield changes

    def _count(self, line: bytes, is_whole: bool, *, good: bool) -> None:
        size = len(line) + is_whole  # the line break, if it is there
        if good:
            self.good_bytes += size
        else:
            self.torn_bytes += size


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

    Error handling: when `append` raises, the file is truncated to the last whole line, so the batch
    is not in it. If that fails too, or a sync has failed (after which the content on disk is
    unknown, even of the block that the batch shares with the one before), the journal is poisoned
    and must not be used again: its batches have to be rewritten elsewhere.

    Resource handling: the file is locked until it is closed, so that a second daemon is noticed even
    if a person has removed the lock file.
    """

    def __init__(self, file: DiskFile, lock: DiskLock, number: int, size_bytes: int) -> None:
        self.number = number
        self.batches = 0
        self.size_bytes = size_bytes
        self.is_poisoned = False
        self._file = file
        self._lock = lock

    @classmethod
    def create(cls, disk: Disk, path: Path, number: int, after: Position) -> "Journal":
        """Create a journal, durably; when it raises, what is left is not a valid journal."""
        file = disk.open(path, "create")
        lock = None
        try:
            lock = disk.lock_existing(path)
            header = encode_header(number, after)
            write_all(file, header)
            file.fsync()
            disk.fsync_dir(path.parent)
        except BaseException:
            file.close()
            if lock is not None:
                lock.release()
            raise
        return cls(file, lock, number, len(header))

    @property
    def position(self) -> Position:
        """The position after the last batch."""
        return Position(self.number, self.batches)

    def append(self, changes: Sequence[Change]) -> int:
        """Make a batch durable, and return the size of its line."""
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
            # The caller raises the first error; this one only poisons the journal.
            self.is_poisoned = True

    def close(self) -> None:
        """Close the file, and release its lock."""
        self._file.close()
        self._lock.release()


def sync_file(disk: Disk, path: Path) -> None:
    """Sync an existing file."""
    file = disk.open(path, "append")
    try:
        file.fsync()
    finally:
        file.close()


def read_lines(disk: Disk, path: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines of a file, each with whether its line break is there."""
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
