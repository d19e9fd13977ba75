"""Write and read a store as NDJSON, line by line: the format of `distconvd export`.

    {"distconv":"export","format":1,"version":"0.1.0"}
    {"table":"jobs","key":"1754_1","record":{"job_id":"1754_1","status":"pending"}}
    {"end":"export","jobs":1,"engines":0,"attempts":0,"meta":0,"sha256":"…"}

The first line names the format; a newer one is rejected, since its additions would be lost. Then comes
one record per line, byte for byte as stored, table by table, in the store's order. The last line has the
number of records and the SHA-256 of every line before it, line breaks included. So a file that was cut,
concatenated, sorted or edited is not accepted as an export.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import msgspec

from distconvd import __version__
from distconvd.commands.counts import count
from distconvd.errors import StoreError, StoreTooNew
from distconvd.store import TABLES, Change, Snapshot, Table

FORMAT = 1
LINE_BYTES_MAX = 1 << 28
"""A longer line cannot be one of our records: a job has at most 1 MB, its history about 10 MB."""
_QUOTED_MAX = 60


class Readable(Protocol):
    """A source of lines as bytes."""

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
    """How many records of each table there are, and the digest of all lines."""

    counts: dict[Table, int]
    sha256: str

    def __str__(self) -> str:
        return ", ".join(count(self.counts[table], table) for table in TABLES)


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
    """Write a snapshot; if `write` raises, that propagates and the file has no last line."""
    tally = _Tally()
    for line in _lines(snapshot, _header_line(FORMAT, __version__), tally):
        write(line)
    summary = tally.summary()
    write(msgspec.json.encode(Trailer("export", **summary.counts, sha256=summary.sha256)) + b"\n")
    return summary


def summary_of(snapshot: Snapshot, header: Header) -> Summary:
    """Return the summary of a dump of this snapshot with that header."""
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
    """Return a record without line breaks, which in JSON can only occur between tokens."""
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
        """Yield each record as the change that puts it; at the end the file is known to be complete.

        Raises:
            StoreError: a line is not what an export writes, or the last line is wrong or missing.
                Everything yielded before must then be discarded.
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
                raise self._bad(f"is not a record ({error})") from error
            if record[:1] != b"{":
                raise self._bad("has a record that is not a JSON object")
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
                f"this is not an export of distconvd: it begins with {line[:_QUOTED_MAX]!r}"
            ) from error
        if header.format > FORMAT:
            raise StoreTooNew(
                f"the export has format {header.format}, written by version {header.version}; this "
                f"is version {__version__}, which reads formats up to {FORMAT}: import it with the "
                "newer version"
            )
        if line != _header_line(header.format, header.version):
            raise self._bad("is not what an export writes")
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
            raise self._bad(f"is not the last line of an export ({error})") from error
        found = self._tally.summary()
        totals = {table: getattr(trailer, table) for table in TABLES}
        if trailer.sha256 != found.sha256 or totals != found.counts:
            raise self._bad("does not match the lines before it: the file was changed or damaged")
        if self._lines.readline(1):
            raise self._bad("is the end of the export, but more lines follow")

    def _bad(self, what: str) -> StoreError:
        return StoreError(f"line {self._number} of the export {what}; nothing was imported")
