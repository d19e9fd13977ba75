"""What the disk stores ask of an encoded record: one JSON object, on one line.

They look no deeper, except that a record which is no JSON would spoil the file that it is put in
for all the others, so it is refused before it gets there.
"""

from collections.abc import Sequence

import msgspec

from distconvd.errors import StoreError
from distconvd.store import TABLES, Change

_syntax = msgspec.json.Decoder(msgspec.Raw)

BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, or not of the shape that was asked for."""


def one_line(record: bytes) -> bytes:
    """Return the record without line breaks, which in JSON can only stand between tokens."""
    if b"\n" in record or b"\r" in record:
        return msgspec.json.format(record, indent=-1)
    return record


def is_object(record: bytes) -> bool:
    """Tell whether bytes that are known to be JSON, without space around, are an object in UTF-8.

    Decoding to `msgspec.Raw` skips over strings without looking at their encoding.
    """
    if record[:1] != b"{":
        return False
    try:
        str(record, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def checked_changes(changes: Sequence[Change]) -> list[Change]:
    """Return a batch fit to be stored.

    Raises:
        StoreError: a table is unknown, a key no text, or a record no JSON object.
    """
    for table, key, _record in changes:
        if table not in TABLES:
            raise StoreError(f"there is no table {table!r}; the tables are {', '.join(TABLES)}")
        encoded_key(key)
    return [
        change
        if change.record is None
        else change._replace(record=_checked(change.table, change.key, change.record))
        for change in changes
    ]


def _checked(table: str, key: str, record: bytes) -> bytes:
    record = one_line(record)
    try:
        _syntax.decode(record)
    except BAD_JSON as error:
        raise StoreError(f"the record {key!r} of {table!r} is no JSON: {error}") from error
    if not is_object(record):
        raise StoreError(f"the record {key!r} of {table!r} is no JSON object in UTF-8")
    return record


def encoded_key(key: str) -> bytes:
    """Return a key as a JSON string.

    Raises:
        StoreError: it has half of a surrogate pair, which no UTF-8 can hold.
    """
    try:
        return msgspec.json.encode(key)
    except UnicodeEncodeError as error:
        raise StoreError(f"the key {key!r} is no Unicode text") from error
