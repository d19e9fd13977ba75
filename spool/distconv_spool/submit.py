"""Drop a job into the spool, durably: the submitter's side."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from distconv_spool.disk import Disk, OsDisk
from distconv_spool.errors import BadDrop
from distconv_spool.fields import DROP_BYTES_MAX, object_to_json, to_json, toml_to_json
from distconv_spool.layout import check
from distconv_spool.names import key_in, mint_key


class Drop(NamedTuple):
    """A file that was dropped; `look` and `wait` take it."""

    name: str
    """Its name in `incoming/`."""


def submit(
    root: Path | str,
    fields: Mapping[str, object] | bytes | str,
    *,
    toml: bool = False,
    key: str | None = None,
    disk: Disk | None = None,
) -> Drop:
    """Drop one job; it is durable when this returns. No daemon needs to be running.

    Args:
        root: the spool's folder, which exists.
        fields: those of `POST /jobs/`: a mapping, or text in JSON (or TOML, with `toml`).
        key: 32 lower-case hex digits that identify this submission. If you are not sure that an
            earlier call succeeded, call again with the same key: that makes one job only.
        disk: another file system, for tests.

    Raises:
        BadDrop: the fields are not an object, or too large.
        SpoolUnusable: the folder is not a spool.
        OSError: the disk failed; nothing was dropped, unless it failed in the last step, the fsync
            of `incoming/`. To be sure, call again with the same key.
    """
    layout, disk = check(root), disk or OsDisk()
    data = _encode(fields, toml=toml)
    name = f"{key or mint_key()}.json"
    if key_in(name) is None:
        raise ValueError("expected a key of 32 lower-case hex digits")
    # Each writer has its own part, so that two writers of one key cannot mix.
    part = layout.tmp / f"{name}.{os.getpid()}-{mint_key()[:8]}"
    try:
        disk.write_new(part, data)
        disk.rename(part, layout.incoming / name)
    except OSError:
        _remove(disk, part)
        raise
    disk.sync_dir(layout.incoming)
    return Drop(name)


def _encode(fields: Mapping[str, object] | bytes | str, *, toml: bool) -> bytes:
    if isinstance(fields, Mapping):
        data = object_to_json(dict(fields))
    else:
        raw = fields if isinstance(fields, bytes) else _utf8(fields)
        data = toml_to_json(raw) if toml else to_json("fields.json", raw)
    if len(data) > DROP_BYTES_MAX:
        raise BadDrop(f"The fields have {len(data)} bytes; a drop may have {DROP_BYTES_MAX}.")
    return data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadDrop(f"The text is not Unicode (character {error.start}).") from None


def _remove(disk: Disk, part: Path) -> None:
    try:
        disk.unlink(part)
    except OSError:
        pass  # a leftover in tmp/ is harmless; the caller raises the first error
