"""Read and write the json store's state file: one JSON document with a line a record.

    {
      "jobs": {
        "1754_1": {"job_id":"1754_1","source_url":"http://…"},
        "1754_2": {"job_id":"1754_2","source_url":"http://…"}
      },
      "engines": {},
      "attempts": {},
      "meta": {},
      "distconv": {"format":1,"journal":7,"batches":42}
    }

The last entry states the format, and how much of which journal the file contains.

Rules: any JSON of that shape is read, whatever its layout: the original's (without `attempts`,
`meta` and `distconv`), or one that a person has edited. Our own layout is read line by line, a
shortcut that needs no memory beyond the records; at the first surprise the whole file is decoded
instead, and only that decides whether the file is valid. An object that has other entries but none
of these is not a state file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from distconv_plugins.stores.encoded import BAD_JSON, encoded_key, is_object, one_line
from distconv_plugins.stores.json_store.journal import Position, read_lines
from distconvd.disk import Disk, read_all, write_all
from distconvd.errors import StoreError, StoreTooNew
from distconvd.store import TABLES, RecordName, Table

FORMAT = 1
_CHUNK_RECORDS = 128
"""Records joined for one write: few, so that the daemon's own thread can run in between."""
_SYNC_BYTES = 16 << 20
"""Sync after this much, or the journal's next sync would wait for all of a big file."""

Tables = dict[Table, dict[str, bytes]]


class StateCorrupt(StoreError):
    """The state file is not JSON, or does not have the shape of a state file."""


class _Surprise(Exception):
    """The file is not in our own layout."""


class State(NamedTuple):
    """The content of a state file."""

    tables: Tables
    position: Position | None
    """None for a file that another program wrote."""
    dropped: list[RecordName]
    """Records that are not objects."""
    size_bytes: int


class _Trailer(msgspec.Struct):
    format: int
    journal: int = 0
    batches: int = 0


_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_trailer = msgspec.json.Decoder(_Trailer)


def write_state(
    disk: Disk, path: Path, tables: Mapping[Table, Mapping[str, bytes]], position: Position
) -> int:
    """Write and sync a state file, and return its size in bytes; its name is not made durable."""
    file = disk.open(path, "create")
    try:
        size_bytes = unsynced_bytes = 0
        for chunk in _document(tables, position):
            write_all(file, chunk)
            size_bytes += len(chunk)
            unsynced_bytes += len(chunk)
            if unsynced_bytes >= _SYNC_BYTES:
                file.fdatasync()
                unsynced_bytes = 0
        file.fsync()
        return size_bytes
    finally:
        file.close()


def _document(tables: Mapping[Table, Mapping[str, bytes]], position: Position) -> Iterator[bytes]:
    opening = b"{"
    for table in TABLES:
        yield b'%b\n  "%b": {' % (opening, table.encode())
        yield from _records(tables[table])
        yield b"\n  }" if tables[table] else b"}"
        opening = b","
    yield b',\n  "distconv": {"format":%d,"journal":%d,"batches":%d}\n}\n' % (FORMAT, *position)


def _records(records: Mapping[str, bytes]) -> Iterator[bytes]:
    lines: list[bytes] = []
    separator = b"\n"
    for key, record in records.items():
        lines.append(b"%b    %b: %b" % (separator, encoded_key(key), record))
        separator = b",\n"
        if len(lines) == _CHUNK_RECORDS:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)


def read_state(disk: Disk, path: Path) -> State:
    """Read a state file of any layout.

    Raises:
        StateCorrupt: it is not a state file.
        StoreTooNew: a newer version wrote it.
    """
    try:
        return _read_lines(disk, path)
    except _Surprise:
        return _read_whole(disk, path)


def _read_lines(disk: Disk, path: Path) -> State:
    """Read our own layout."""
    lines = (line for line, _ended in read_lines(disk, path))
    tables = empty_tables()
    _expect(next(lines, b"") == b"{")
    for table in TABLES:
        opening = next(lines, b"")
        if opening != b'  "%b": {},' % table.encode():
            _expect(opening == b'  "%b": {' % table.encode())
            _read_records(lines, tables[table])
    position = _read_trailer(path, next(lines, b""))
    _expect(next(lines, b"") == b"}" and next(lines, None) is None)
    return State(tables, position, [], disk.size(path))


def _read_records(lines: Iterator[bytes], records: dict[str, bytes]) -> None:
    for line in lines:
        if line == b"  },":
            return
        try:
            ((key, raw),) = _raw_object.decode(b"{%b}" % line.removesuffix(b",")).items()
        except (*BAD_JSON, ValueError) as error:
            raise _Surprise from error
        record = bytes(raw)
        _expect(is_object(record))
        records[key] = record
    raise _Surprise


def _read_trailer(path: Path, line: bytes) -> Position:
    try:
        ((name, raw),) = _raw_object.decode(b"{%b}" % line).items()
        _expect(name == "distconv")
        return _position(path, raw)
    except (*BAD_JSON, ValueError) as error:
        raise _Surprise from error


def _expect(as_expected: bool) -> None:
    if not as_expected:
        raise _Surprise


def _read_whole(disk: Disk, path: Path) -> State:
    """Read any layout."""
    data = read_all(disk, path)
    try:
        document = _raw_object.decode(data.removeprefix(b"\xef\xbb\xbf"))
        _check_shape(document)
        position = _position(path, document["distconv"]) if "distconv" in document else None
        tables = empty_tables()
        dropped: list[RecordName] = []
        for table in TABLES:
            _read_table(table, document.get(table), tables, dropped)
    except BAD_JSON as error:
        raise StateCorrupt(str(error)) from error
    return State(tables, position, dropped, len(data))


def _check_shape(document: Mapping[str, msgspec.Raw]) -> None:
    """Reject another program's object, such as a key file; a state file may lack any entry."""
    if document and not document.keys() & {*TABLES, "distconv"}:
        strange = ", ".join(repr(name)[:40] for name in list(document)[:5])
        raise StateCorrupt(f"it has neither jobs nor engines, but {strange}: is it another file?")


def _read_table(
    table: Table, raw: msgspec.Raw | None, tables: Tables, dropped: list[RecordName]
) -> None:
    if raw is None or bytes(raw) == b"null":
        return
    for key, value in _raw_object.decode(raw).items():
        record = one_line(bytes(value))
        if is_object(record):
            tables[table][key] = record
        else:
            dropped.append(RecordName(table, key))


def _position(path: Path, raw: msgspec.Raw) -> Position:
    trailer = _trailer.decode(raw)
    if trailer.format > FORMAT:
        raise StoreTooNew(
            f"the state file {path} has format {trailer.format}, and this version supports up to "
            f"{FORMAT}; start the newer version that wrote it, or restore a backup of this one's"
        )
    return Position(trailer.journal, trailer.batches)


def empty_tables() -> Tables:
    """Return the tables of an empty store."""
    return {table: {} for table in TABLES}
