"""The submitting side: put a drop into the spool so that it survives whatever comes next."""

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
    """One file that was dropped; what `look` and `wait` take."""

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
        fields: those of `POST /jobs/`: a mapping, or a text in JSON (or TOML, with `toml`).
        key: 32 lower-case hex digits that stand for this one submission. Whoever is not sure
            that an earlier call came through calls again with the same key and gets one job.
        disk: another file system, for tests.

    Raises:
        BadDrop: the fields are no object, or too large.
        SpoolUnusable: the folder is no spool.
        OSError: the disk refused; nothing was dropped unless it was the last step, the fsync of
            `incoming/`, that failed. To be sure, call again with the same key.
    """
    layout, disk = check(root), disk or OsDisk()
    data = _encode(fields, toml=toml)
    name = f"{key or mint_key()}.json"
    if key_in(name) is None:
        raise ValueError("a key is 32 lower-case hex digits")
    # The writer's own part keeps two writers of one key apart.
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
        raise BadDrop(f"The fields take {len(data)} bytes; a drop holds {DROP_BYTES_MAX}.")
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
        pass  # it is a leftover in tmp/, which means nothing; the first error is the one to tell
