"""Read the json store's state file and journals when the store opens.

The state file says how much of which journal it contains. From there the journals form a chain:
each header names the position in an earlier one where it continues. A journal without a batch is
not part of the chain: it contains nothing acknowledged, and a failed rotation may have written it.

Nothing on disk is changed here. What has to be set aside or rewritten is in the result, because it
must happen in an order in which a crash loses nothing.
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
    """Everything that was read, and what must be done before anything may be acknowledged."""

    def __init__(self) -> None:
        self.tables: Tables = empty_tables()
        self.position = Position(0, 0)
        """The end of the chain: the last replayed batch, or what the state file contains."""
        self.state_position = Position(0, 0)
        """What the state file contains, or the previous one if that was used."""
        self.state_bytes = 0
        self.journal_bytes = 0
        """Bytes of batches that the state file does not contain."""
        self.rewrite = False
        """Rewrite the state file first: the present one is missing, foreign or damaged."""
        self.keep_state: str | None = None
        """Keep a copy of the state file under this word: not all of it is in `tables`."""
        self.previous: int | None = None
        """Keep the previous state file, which needs the journals from this one on: the present
        state file is not fit to replace it."""
        self.damaged: list[Path] = []
        """Journals to set aside once the state file is rewritten."""
        self.empty: list[Path] = []
        """Journals without a batch."""
        self.orphans: list[Path] = []
        """Files that belong to another state file than the present one."""
        self.next_journal = 1


def recover(disk: Disk, names: Names) -> Recovered:
    """Read the state file and all journals.

    Raises:
        StoreTooNew: a newer version wrote a part of it.
        OSError: a file cannot be read.
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
    """Read the state file or what can replace it; return where the journals continue, if known."""
    # Files that belong to a state file: if that is missing or is the original's, they are orphans.
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
        found.previous = found.state_position.journal
        return start
    _take(state, found)
    if state.position is None:
        found.orphans = extras
        found.rewrite = True
    if state.dropped:
        log.error(
            "records of the state file %s that are not JSON objects were left out (%d): %s",
            names.state,
            len(state.dropped),
            ", ".join(state.dropped[:20]),
        )
        found.rewrite = True
        found.keep_state = "partial"
    return state.position


def _read_previous(disk: Disk, names: Names, found: Recovered) -> Position | None:
    """Read the state file before the corrupt one; the journals since then still exist."""
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
    found.state_position = state.position or Position(0, 0)


class _Link:
    """One journal of the chain, of which only the beginning has been read."""

    def __init__(self, disk: Disk, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        reader = JournalReader(disk, path, number)
        self.empty = next(reader.batches(), None) is None and not reader.damaged
        self.after = reader.after

    def limit(self, following: "_Link | None") -> int | None:
        """Return how many of its batches count, if the following journal says so."""
        if following is None or following.after is None or following.after.journal != self.number:
            return None
        return following.after.batches


def _replay(disk: Disk, journals: list[_Link], start: Position | None, found: Recovered) -> None:
    """Apply the journals from `start` on (or all of them) as far as the chain is complete."""
    if start is not None:
        # Older ones exist for the previous state file only.
        journals = [journal for journal in journals if journal.number >= start.journal]
    for index, journal in enumerate(journals):
        following = journals[index + 1] if index + 1 < len(journals) else None
        # The first one need not continue anything: the state file names it, or none is usable.
        first = index == 0 and (start is None or journal.number == start.journal)
        # A gap: later batches build on missing ones, so applying them would invent a state.
        if not first and journal.after != found.position:
            log.error(
                "the journal %s continues after %s, but the batches found end at %s: a journal is "
                "missing or damaged, and everything after the gap is left out",
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
    """Apply one journal; return False if durable batches of it are missing."""
    # Skip what the state file already contains, which may be a part of its first journal.
    same = journal.number == found.position.journal
    contained = found.position.batches if same else 0
    limit = journal.limit(following)
    reader = JournalReader(disk, journal.path, journal.number)
    count = 0
    skipped_bytes = reader.good_bytes
    for count, changes in enumerate(reader.batches(), start=1):
        # Beyond the position where the next journal continues, there are only batches whose commit
        # failed: the daemon has rejected them, so they must not come back.
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
    found.journal_bytes += reader.good_bytes - skipped_bytes
    # Fewer batches than the next journal saw, or a valid line after an invalid one: the disk lost
    # what had been durable. Without either, an incomplete end is a batch never acknowledged.
    if reader.damaged or (limit is not None and count < limit):
        log.error(
            "the journal %s is damaged after batch %d, byte %d; the rest of it is left out",
            journal.path,
            count,
            reader.good_bytes,
        )
        return False
    if reader.torn_bytes:
        log.warning(
            "the end of the journal %s is left out: %d bytes of a batch that was never acknowledged",
            journal.path,
            reader.torn_bytes,
        )
    return True


def _give_up(journals: list[_Link], found: Recovered) -> None:
    found.damaged = [journal.path for journal in journals]
    found.rewrite = True
