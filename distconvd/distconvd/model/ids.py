"""Define which characters an id may have.

One rule for the daemon, which refuses other ids, and the engine, which checks its id at its start.
"""

import re

from distconvd.model.limits import Limits

ID_RULE = (
    f"must have 1 to {Limits.id_chars} characters, without spaces, slashes or control characters."
)
_WORD = re.compile(r"[^\s/\x00-\x1f\x7f]+\Z")


def is_word(value: str) -> bool:
    """Whether this is non-empty and has no space, slash or control character."""
    return _WORD.match(value) is not None


def is_id(value: str) -> bool:
    """Whether this can be an engine's id."""
    return len(value) <= Limits.id_chars and is_word(value)
