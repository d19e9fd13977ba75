"""Every row that `docs/verdicts.md` must have: each source with each thing done to it."""

from tests.engine.clips import CONTAINERS
from tests.engine.odd import ODD
from tests.engine.spoil import SPOILED

SPOILT = "Spoiled files"
CHANGING = "Files that change while they are read"
SERVED = "Servers that misbehave"
SOUND = "Odd but sound files"
UNHELD = "Streams that the wanted container cannot hold"
AS_IT_IS = "nothing"

CHANGES = ("shrinks", "grows", "is replaced", "is written to")
MISCHIEF = ("breaks off", "claims less", "claims more", "changes between requests")
TOO_SMALL = {
    "text-subtitles": "ts",
    "bitmap-subtitles": "mp4",
    "chapters": "ts",
    "cover-art": "ts",
}
"""Odd files, and a container that cannot hold all of each."""


def all_rows() -> list[tuple[str, str, str]]:
    """Return (section, source, change), in the page's order."""
    rows = [(SPOILT, kind, how) for kind in CONTAINERS for how in (AS_IT_IS, *SPOILED)]
    rows += [(CHANGING, kind, how) for kind in CONTAINERS for how in CHANGES]
    rows += [(SERVED, kind, how) for kind in CONTAINERS for how in MISCHIEF]
    rows += [(SOUND, name, AS_IT_IS) for name in ODD]
    return rows + [
        (UNHELD, name, f"to {container}, {what}")
        for name, container in TOO_SMALL.items()
        for what in ("fail", "drop")
    ]
