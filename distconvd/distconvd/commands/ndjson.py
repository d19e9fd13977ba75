"""A store as NDJSON: the format of `distconvd export`, written and read line by line.

    {"distconv":"export","format":1,"version":"0.1.0"}
    {"table":"jobs","key":"1754_1","record":{"job_id":"1754_1","status":"pending"}}
    {"end":"export","jobs":1,"engines":0,"attempts":0,"meta":0,"sha256":"…"}

The first line says which format this is; a newer one is refused, since what it added would be lost.
Then one record a line, byte for byte as stored, table by table, in the store's order. The last line
counts them and has the SHA-256 of every line before it, line breaks included. So a file that was cut,
joined, sorted or edited is not taken for an export: a file without its last line is none.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import msgspec

from distconvd import __version__
from distconvd.errors import StoreError, StoreTooNew
from distconvd.store import TABLES, Change, Snapshot, Table

FORMAT = 1
LINE_BYTES_MAX = 1 << 28
"""A longer line is no record of ours: a job has at most a megabyte, its history some ten."""
_SAID_MAX = 60


class Readable(Protocol):
    """Bytes by the line."""

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line, or its first `size` bytes; empty at the end."""
        ...


class Header(msgspec.Struct, frozen=True):
    """The first line."""

    distconv: Literal["export"]
    format: int
    version: str = "?"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record."""

    table: Table
    key: str
    record: msgspec.Raw


class Trailer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: how many records of each table, and the digest of all lines before."""

    end: Literal["export"]
    jobs: int
    engines: int
    attempts: int
    meta: int
    sha256: str


class Summary(NamedTuple):
    """What went by."""

    counts: dict[Table, int]
    sha256: str

    def __str__(self) -> str:
        return ", ".join(f"{self.counts[table]} {table}" for table in TABLES)


_header = msgspec.json.Decoder(Header)
_entry = msgspec.json.Decoder(Entry)
_trailer = msgspec.json.Decoder(Trailer)


class _Tally:
    """Counts and digests lines."""

    def __init__(self) -> None:
        self.counts: dict[Table, int] = dict.fromkeys(TABLES, 0)
        self._digest = hashlib.sha256()

    def take(self, line: bytes, table: Table | None = None) -> bytes:
        self._digest.update(line)
        if table is not None:
            self.counts[table] += 1
        return line

    def summary(self) -> Summary:
        return Summary(dict(self.counts), self._digest.hexdigest())


def write_dump(snapshot: Snapshot, write: Callable[[bytes], object]) -> Summary:
    """Write a snapshot; what `write` raises passes through, and the file then has no last line."""
    tally = _Tally()
    for line in _lines(snapshot, _header_line(FORMAT, __version__), tally):
        write(line)
    summary = tally.summary()
    write(msgspec.json.encode(Trailer("export", **summary.counts, sha256=summary.sha256)) + b"\n")
    return summary


def summary_of(snapshot: Snapshot, header: Header) -> Summary:
    """Return what a dump of this snapshot under that header would sum up to."""
    tally = _Tally()
    for _ in _lines(snapshot, _header_line(header.format, header.version), tally):
        pass
    return tally.summary()


def _header_line(format_number: int, version: str) -> bytes:
    return msgspec.json.encode(Header("export", format_number, version)) + b"\n"


def _lines(snapshot: Snapshot, header: bytes, tally: _Tally) -> Iterator[bytes]:
    yield tally.take(header)
    for table, records in zip(TABLES, snapshot, strict=True):
        for key, record in records.items():
            entry = Entry(table, key, msgspec.Raw(_one_line(record)))
            yield tally.take(msgspec.json.encode(entry) + b"\n", table)


def _one_line(record: bytes) -> bytes:
    """Return a record without line breaks, which in JSON can only stand between tokens."""
    is_broken = b"\n" in record or b"\r" in record
    return msgspec.json.format(record, indent=-1) if is_broken else record


class DumpReader:
    """Reads one dump from its first line to its last.

    Args:
        lines: the file, at its beginning.
    """

    def __init__(self, lines: Readable) -> None:
        self._lines = lines
        self._number = 0
        self._tally = _Tally()
        self.header = self._read_header()

    def changes(self) -> Iterator[Change]:
        """Yield each record as the change that puts it; at the end the file is known to be whole.

        Raises:
            StoreError: at the first line that is not what an export writes, the last line not
                being what it must be, or there being none. What was yielded before counts for
                nothing then.
        """
        while True:
            line = self._line()
            if line.startswith(b'{"end"'):
                self._check_end(line)
                return
            try:
                entry = _entry.decode(line)
                record = bytes(entry.record)
                str(record, "utf-8")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._bad(f"is no record ({error})") from error
            if record[:1] != b"{":
                raise self._bad("has a record that is no JSON object")
            self._tally.take(line, entry.table)
            yield Change(entry.table, entry.key, record)

    def summary(self) -> Summary:
        """Return what has been read so far."""
        return self._tally.summary()

    def _read_header(self) -> Header:
        line = self._line()
        try:
            header = _header.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(
                f"this is no export of distconvd: it begins with {line[:_SAID_MAX]!r}"
            ) from error
        if header.format > FORMAT:
            raise StoreTooNew(
                f"the export has format {header.format}, written by version {header.version}; this "
                f"is version {__version__}, which knows up to {FORMAT}: import it with the newer one"
            )
        if line != _header_line(header.format, header.version):
            raise self._bad("is not as an export writes it")
        self._tally.take(line)
        return header

    def _line(self) -> bytes:
        self._number += 1
        line = self._lines.readline(LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            if len(line) >= LINE_BYTES_MAX:
                raise self._bad("is longer than any record")
            at = f"in line {self._number}" if line else f"after line {self._number - 1}"
            raise StoreError(
                f"the export is cut off {at}: its last line, with the checksum, is missing; "
                "nothing was imported: make the export again, or copy the file again"
            )
        return line

    def _check_end(self, line: bytes) -> None:
        try:
            trailer = _trailer.decode(line)
        except msgspec.DecodeError as error:
            raise self._bad(f"is no end of an export ({error})") from error
        found = self._tally.summary()
        totals = {table: getattr(trailer, table) for table in TABLES}
        if trailer.sha256 != found.sha256 or totals != found.counts:
            raise self._bad(
                "does not fit what is before it: the file was changed or damaged since it was made"
            )
        if self._lines.readline(1):
            raise self._bad("is the end of the export, and the file goes on")

    def _bad(self, what: str) -> StoreError:
        return StoreError(f"line {self._number} of the export {what}; nothing was imported")
