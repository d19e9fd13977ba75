"""Define which characters an id may have.

One rule for the daemon, which refuses other ids, and the engine, which checks its id at its start.
"""

import re

from distconvd.model.limits import Limits

ID_RULE = (
    f"must have 1 to {Limits.id_chars} characters, without spaces, slashes or control characters"
)
WORD_PATTERN = r"[^\s/\x00-\x1f\x7f\x85]+"  # \x85: a space in Python, not in ECMA-262
_WORD = re.compile(WORD_PATTERN + r"\Z")


def is_id(value: str) -> bool:
    """Whether this can be an engine's id: non-empty, without spaces, slashes, control characters."""
    return len(value) <= Limits.id_chars and _WORD.match(value) is not None
