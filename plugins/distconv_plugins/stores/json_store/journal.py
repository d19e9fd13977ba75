"""Write the json store's journal, a text file with a line for each batch.

A line is a JSON object that begins with the checksum and the size of what follows:

    {"crc":"bcb127f9","size":39,"journal":7,"format":1,"after":[6,112]}
    {"crc":"ac05ec29","size":72,"journal":7,"batch":1,"changes":[["jobs","1754_1",{"job_id":"1754_1"}]]}

The first line says which journal this is and where it continues: after how many batches of which
earlier one. The others say of which journal they are (earlier versions did not), and count up from 1.
A change is `[table, key, record]`, with `null` for a delete: never a difference to an earlier record,
so a batch can be applied although an earlier one is lost. `journal_reader` reads journals.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from distconv_plugins.stores.encoded import encoded_key
from distconvd.disk import Disk, DiskFile, DiskLock, write_all
from distconvd.store import Change

FORMAT = 1
_READ_BYTES = 1 << 20
_OPENING = len(b'{"crc":"01234567","size":')


class Position(NamedTuple):
    """A place in the sequence of batches: after this many batches of this journal."""

    journal: int
    batches: int


def encode_line(payload: bytes) -> bytes:
    """Return the line of a payload: an object's text without its opening brace."""
    return b'{"crc":"%08x","size":%d,%b\n' % (zlib.crc32(payload), len(payload), payload)


def decode_line(line: bytes) -> bytes | None:
    """Return the object of a line (without its line break); None if it is damaged."""
    comma = line.find(b",", _OPENING)
    payload = line[comma + 1 :]
    return b"{" + payload if comma > 0 and encode_line(payload)[:-1] == line else None


def encode_batch(journal: int, number: int, changes: Sequence[Change]) -> bytes:
    """Return the line of a batch, whose records have been checked and are on one line each."""
    parts: list[bytes] = []
    for table, key, record in changes:
        value = b"null" if record is None else record
        parts.append(b'["%b",%b,%b]' % (table.encode(), encoded_key(key), value))
    what = b'"journal":%d,"batch":%d,"changes":[%b]}' % (journal, number, b",".join(parts))
    return encode_line(what)


def encode_header(number: int, after: Position) -> bytes:
    """Return the first line of journal `number`."""
    return encode_line(b'"journal":%d,"format":%d,"after":[%d,%d]}' % (number, FORMAT, *after))


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
        line = encode_batch(self.number, self.batches + 1, changes)
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
