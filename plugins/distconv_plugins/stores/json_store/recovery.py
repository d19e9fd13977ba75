"""What the json store finds when it opens: the state file, and the journals that go on from it.

The state file says how much of which journal it contains. From there the journals form a chain:
each header names the place in an earlier one where it goes on. A journal without a batch binds
nothing, since nothing acknowledged is in it, and its header may be of an attempt that failed.

Nothing on disk is changed here: what has to be set aside or written anew is in the answer, because
that may only happen in an order in which a crash loses nothing.
"""

import logging
from pathlib import Path

from distconv_plugins.stores.json_store.journal import JournalReader, Position
from distconv_plugins.stores.json_store.names import Names
from distconv_plugins.stores.json_store.state_file import (
    State,
    StateCorrupt,
    Tables,
    empty_tables,
    read_state,
)
from distconvd.disk import Disk

log = logging.getLogger("distconvd.store")


class Recovered:
    """Everything found, and what is to be done before anything may be acknowledged."""

    def __init__(self) -> None:
        self.tables: Tables = empty_tables()
        self.position = Position(0, 0)
        """Where the chain ends: what was replayed, or what the state file contains."""
        self.folded = Position(0, 0)
        """What the state file contains, or the previous one if that was used."""
        self.state_bytes = 0
        self.unfolded_bytes = 0
        """Of batches that the state file does not contain."""
        self.rewrite = False
        """Write the state file anew first: what is there is missing, foreign or damaged."""
        self.keep_state: str | None = None
        """Keep a copy of the state file under this word: it is not all in `tables`."""
        self.previous: int | None = None
        """The state file is not fit to become the previous one, which goes on with this journal."""
        self.damaged: list[Path] = []
        """Set these aside once the state file is written anew."""
        self.empty: list[Path] = []
        """Journals that hold nothing."""
        self.orphans: list[Path] = []
        """Files that belong to another state file than the one that is there."""
        self.next_journal = 1


def recover(disk: Disk, names: Names) -> Recovered:
    """Read everything.

    Raises:
        StoreTooNew: a newer version wrote a part of it.
        OSError: the disk does not let us read.
    """
    found = Recovered()
    numbers = names.journals()
    if numbers:
        found.next_journal = numbers[-1] + 1
    start = _read_base(disk, names, found, numbers)
    if found.orphans:
        return found
    if start is not None:
        found.position = start
        found.next_journal = max(found.next_journal, start.journal + 1)
    journals = [_Link(disk, names.journal(number), number) for number in numbers]
    found.empty = [journal.path for journal in journals if journal.empty]
    _replay(disk, [journal for journal in journals if not journal.empty], start, found)
    return found


def _read_base(disk: Disk, names: Names, found: Recovered, numbers: list[int]) -> Position | None:
    """Read the state file or what can stand for it; return where the journals go on, if known."""
    extras = [names.journal(number) for number in numbers]
    extras += [names.previous] if names.exists(names.previous) else []
    if not names.exists(names.state):
        found.orphans = extras
        found.rewrite = True
        found.previous = 0
        return None
    found.state_bytes = disk.size(names.state)
    if found.state_bytes == 0 and not extras:
        log.warning("the state file %s is empty; starting without jobs", names.state)
        found.rewrite = True
        found.previous = 0
        found.keep_state = "empty"
        return None
    try:
        state = read_state(disk, names.state)
    except StateCorrupt as error:
        log.error("the state file %s is corrupt: %s", names.state, error)
        found.rewrite = True
        found.keep_state = "corrupt"
        start = _read_previous(disk, names, found)
        found.previous = found.folded.journal
        return start
    _take(state, found)
    if state.position is None:
        found.orphans = extras
        found.rewrite = True
    if state.dropped:
        log.error(
            "%d records of the state file %s are no JSON objects and were left out: %s",
            len(state.dropped),
            names.state,
            ", ".join(state.dropped[:20]),
        )
        found.rewrite = True
        found.keep_state = "partial"
    return state.position


def _read_previous(disk: Disk, names: Names, found: Recovered) -> Position | None:
    """Read the state file before the corrupt one; the journals since are still there."""
    try:
        if names.exists(names.previous):
            state = read_state(disk, names.previous)
            _take(state, found)
            log.error("using the previous state file %s and the journals since", names.previous)
            return state.position
        log.error("there is no previous state file; using the journals alone")
    except StateCorrupt as error:
        log.error("the previous state file is corrupt too: %s; using the journals alone", error)
    return None


def _take(state: State, found: Recovered) -> None:
    found.tables = state.tables
    found.state_bytes = state.size_bytes
    found.folded = state.position or Position(0, 0)


class _Link:
    """One journal of the chain, looked at but not read."""

    def __init__(self, disk: Disk, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        reader = JournalReader(disk, path, number)
        self.empty = next(reader.batches(), None) is None and not reader.damaged
        self.after = reader.after

    def limit(self, following: "_Link | None") -> int | None:
        """Return how many batches count, where the journal that follows says so."""
        if following is None or following.after is None or following.after.journal != self.number:
            return None
        return following.after.batches


def _replay(disk: Disk, journals: list[_Link], start: Position | None, found: Recovered) -> None:
    """Apply the journals from `start` on, or all of them, as far as the chain is whole."""
    if start is not None:
        journals = [journal for journal in journals if journal.number >= start.journal]
    for index, journal in enumerate(journals):
        following = journals[index + 1] if index + 1 < len(journals) else None
        first = index == 0 and (start is None or journal.number == start.journal)
        if not first and journal.after != found.position:
            log.error(
                "the journal %s goes on after %s, but what is there ends at %s: a journal is "
                "missing or damaged, and what came after it is left out",
                journal.path,
                journal.after,
                found.position,
            )
            _give_up(journals[index:], found)
            return
        if not _apply(disk, journal, following, found):
            _give_up(journals[index:], found)
            return


def _apply(disk: Disk, journal: _Link, following: _Link | None, found: Recovered) -> bool:
    """Apply one journal; False when durable batches of it are missing."""
    same = journal.number == found.position.journal
    contained = found.position.batches if same else 0
    limit = journal.limit(following)
    reader = JournalReader(disk, journal.path, journal.number)
    count = 0
    skipped_bytes = reader.good_bytes
    for count, changes in enumerate(reader.batches(), start=1):
        if limit is not None and count > limit:
            count = limit
            break
        if count <= contained:
            skipped_bytes = reader.good_bytes
            continue
        for table, key, record in changes:
            if record is None:
                found.tables[table].pop(key, None)
            else:
                found.tables[table][key] = record
    found.position = Position(journal.number, max(count, contained))
    found.unfolded_bytes += reader.good_bytes - skipped_bytes
    if reader.damaged or (limit is not None and count < limit):
        log.error(
            "the journal %s is damaged after batch %d, byte %d; what follows is left out",
            journal.path,
            count,
            reader.good_bytes,
        )
        return False
    if reader.torn_bytes:
        log.warning(
            "the journal %s ends in %d bytes of a batch that was never acknowledged; cut off",
            journal.path,
            reader.torn_bytes,
        )
    return True


def _give_up(journals: list[_Link], found: Recovered) -> None:
    found.damaged = [journal.path for journal in journals]
    found.rewrite = True
