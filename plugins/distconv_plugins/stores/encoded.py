"""Check that an encoded record is one JSON object on one line, as the disk stores need it.

They look no deeper. But a record that is not JSON would corrupt the file that contains it, and with
it all other records, so it is rejected before it is written.
"""

from collections.abc import Sequence

import msgspec

from distconvd.errors import StoreError
from distconvd.store import TABLES, Change

_syntax = msgspec.json.Decoder(msgspec.Raw)

BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not JSON, or not of the requested type."""


def one_line(record: bytes) -> bytes:
    """Return the record without line breaks, which in JSON can only be between tokens."""
    if b"\n" in record or b"\r" in record:
        return msgspec.json.format(record, indent=-1)
    return record


def is_object(record: bytes) -> bool:
    """Whether bytes that are known to be JSON, without space around, are an object in UTF-8.

    Decoding to `msgspec.Raw` does not check the encoding of strings.
    """
    if record[:1] != b"{":
        return False
    try:
        str(record, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def checked_changes(changes: Sequence[Change]) -> list[Change]:
    """Return a batch with each record on one line.

    Raises:
        StoreError: a table is unknown, a key is not Unicode, or a record is not a JSON object.
    """
    for table, key, _record in changes:
        if table not in TABLES:
            raise StoreError(f"there is no table {table!r}; the tables are {', '.join(TABLES)}")
        encoded_key(key)
    return [_checked(change) for change in changes]


def _checked(change: Change) -> Change:
    """Return a change with its record on one line; almost every record is on one already."""
    table, key, given = change
    if given is None:
        return change
    record = one_line(given)
    try:
        _syntax.decode(record)
    except BAD_JSON as error:
        raise StoreError(f"the record {key!r} of {table!r} is not JSON: {error}") from error
    if not is_object(record):
        raise StoreError(f"the record {key!r} of {table!r} is not a JSON object in UTF-8")
    return change if record is given else Change(table, key, record)


def encoded_key(key: str) -> bytes:
    """Return a key as a JSON string.

    Raises:
        StoreError: it contains half of a surrogate pair, which UTF-8 cannot encode.
    """
    try:
        return msgspec.json.encode(key)
    except UnicodeEncodeError as error:
        raise StoreError(f"the key {key!r} is not Unicode text") from error
