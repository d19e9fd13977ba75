"""Recognize the file names of drops, and add an id to a name or remove it.

Names are Python strings: undecodable bytes are lone surrogates (PEP 383), so any name is preserved
byte for byte from one folder to the next. A name is written to a log or a document only through
`printable`.
"""

import os
import re
import uuid

NAME_BYTES_MAX = 255
PROBLEM_SUFFIX = ".problem.json"
SEPARATOR = "~"

_SUFFIXES = (".json", ".toml")
_COMPANIONS = ("._", ".#", ".~")
"""Prefixes of files that macOS, Emacs and LibreOffice put next to a file. They are not drops: each
would be rejected, to the surprise of the person who dropped the other file."""
_KEYED = re.compile(r"([0-9a-f]{32})\.json")
_TAGGED = re.compile(r"([A-Za-z0-9_-]{1,64})~(.+)", re.DOTALL)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_drop(name: str) -> bool:
    """Whether a file of this name in `incoming/` is a drop; others are left alone."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(_COMPANIONS)


def mint_key() -> str:
    """Return a new unique key of 32 hex digits."""
    return uuid.uuid4().hex


def key_in(name: str) -> str | None:
    """Return the key in a drop's name, if any; such a drop is complete, as it came by rename."""
    match = _KEYED.fullmatch(name)
    return match[1] if match else None


def is_id(text: str) -> bool:
    """Whether a text can be a job's id in a file name: short, without separators and dots."""
    return _ID.fullmatch(text) is not None


def tagged(tag: str, name: str, name_bytes_max: int = NAME_BYTES_MAX) -> str:
    """Return `<tag>~<name>`, with the name's stem cut to fit all into `name_bytes_max`.

    Raises:
        ValueError: the tag contains other characters than A-Z a-z 0-9 _ - or is too long.
    """
    if not is_id(tag):
        raise ValueError(f"{tag!r} cannot be part of a file name")
    return f"{tag}{SEPARATOR}{_fit(name, name_bytes_max - len(tag) - 1)}"


def untagged(name: str) -> tuple[str, str] | None:
    """Return tag and name of a tagged file name; None for any other."""
    match = _TAGGED.fullmatch(name)
    return (match[1], match[2]) if match else None


def printable(name: str) -> str:
    """Return a name as ASCII that is harmless in a terminal, a log or a JSON document."""
    return ascii(name)[1:-1]


def _fit(name: str, name_bytes_max: int) -> str:
    raw = os.fsencode(name)
    if len(raw) <= name_bytes_max:
        return name
    stem, suffix = raw[:-5], raw[-5:]  # both suffixes are five bytes long
    stem = stem[: name_bytes_max - len(suffix)]
    while stem and raw[len(stem)] & 0xC0 == 0x80:  # never in the middle of a UTF-8 character
        stem = stem[:-1]
    return os.fsdecode(stem + suffix)
