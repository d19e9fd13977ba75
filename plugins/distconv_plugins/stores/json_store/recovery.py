"""Read the json store's state file and journals when the store opens.

The state file says how much of which journal it contains. From there the journals form a chain:
each header names the position in an earlier one where it continues. A journal without a batch is
not part of the chain: it contains nothing acknowledged, and a failed rotation may have written it.

Damage ends nothing: every batch whose checksum holds is applied. A batch contains whole records, never
a difference to a lost one, so each record that a later batch has written is as it was acknowledged. The
others that a lost batch has changed are named in the result. Only if the journals do not continue the
state file at all they are left out: they may be those of another one, as after a restored backup.

Nothing on disk is changed here. What has to be set aside or rewritten is in the result, because it
must happen in an order in which a crash loses nothing.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from distconv_plugins.stores.json_store.journal import Position
from distconv_plugins.stores.json_store.journal_reader import Batch, Gap, JournalReader
from distconv_plugins.stores.json_store.names import Names
from distconv_plugins.stores.json_store.state_file import (
    State,
    StateCorrupt,
    Tables,
    empty_tables,
    read_state,
)
from distconvd.disk import Disk
from distconvd.store import Change, Damage, RecordName

log = logging.getLogger("distconvd.store")

NAMED_MAX = 100
"""Records named in the sentence on a damage; the result has all."""


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
        self._damage: list[str] = []
        self._touched: dict[RecordName, int] = {}
        """Records with a lost change, to the damage that lost the last one."""

    def report(self, text: str, names: Iterable[RecordName] = ()) -> None:
        """Note a damage, and the records of which it has lost a change."""
        for name in names:
            self._touched.pop(name, None)
            self._touched[name] = len(self._damage)
        self._damage.append(text)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply a batch; a record that it contains has lost nothing any more."""
        for table, key, record in changes:
            if record is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = record
            if self._touched:
                self._touched.pop(RecordName(table, key), None)

    def damage(self) -> list[Damage]:
        """Return the damage, with the records that it still concerns."""
        touched: list[list[RecordName]] = [[] for _ in self._damage]
        for name, number in self._touched.items():
            touched[number].append(name)
        return [
            Damage(text + _named(names), tuple(names))
            for text, names in zip(self._damage, touched, strict=True)
        ]


def _named(names: Sequence[RecordName]) -> str:
    if not names:
        return ""
    shown = ", ".join(map(str, names[:NAMED_MAX]))
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"; older than what was acknowledged, or missing: {shown}{more}"


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
    empty = _find_empty(journals)
    found.empty = [journal.path for journal in empty]
    _replay(disk, [journal for journal in journals if journal not in empty], start, found)
    return found


def _read_base(disk: Disk, names: Names, found: Recovered, numbers: list[int]) -> Position | None:
    """Read the state file or what can replace it; return where the journals continue, if known."""
    # Files that belong to a state file: if that is missing or is the original's, they are orphans.
    extras = [names.journal(number) for number in numbers]
    extras += [names.previous] if names.exists(names.previous) else []
    if not names.exists(names.state):
        found.orphans = extras
        found.orphans += [names.damage] if names.exists(names.damage) else []
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
        found.rewrite = True
        found.keep_state = "corrupt"
        start = _read_previous(
            disk, names, found, f"the state file {names.state} is corrupt: {error}"
        )
        found.previous = found.state_position.journal
        return start
    _take(state, found)
    if state.position is None:
        found.orphans = extras
        found.rewrite = True
    if state.dropped:
        number = len(state.dropped)
        found.report(
            f"records of the state file {names.state} that are not JSON objects were left out "
            f"({number})",
            state.dropped,
        )
        found.rewrite = True
        found.keep_state = "partial"
    return state.position


def _read_previous(disk: Disk, names: Names, found: Recovered, fault: str) -> Position | None:
    """Read the state file before the corrupt one; the journals since then still exist."""
    try:
        if names.exists(names.previous):
            state = read_state(disk, names.previous)
            _take(state, found)
            found.report(f"{fault}; using the previous state file and the journals since")
            return state.position
        found.report(f"{fault}; there is no previous state file; using the journals alone")
    except StateCorrupt as error:
        found.report(
            f"{fault}; the previous state file is corrupt too: {error}; using the journals alone"
        )
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
        self.has_batch = next(reader.entries(), None) is not None
        self.after = reader.after
        self.may_have_had_one = reader.lost_the_last

    def limit(self, following: "_Link | None") -> int | None:
        """Return how many of its batches count, if the following journal says so."""
        if following is None or following.after is None or following.after.journal != self.number:
            return None
        return following.after.batches


def _find_empty(journals: Sequence[_Link]) -> list[_Link]:
    """Return the journals that nothing acknowledged can have been in."""
    continued = {
        journal.after.journal for journal in journals if journal.after and journal.after.batches
    }
    return [
        journal
        for journal in journals
        if not journal.has_batch
        and not journal.may_have_had_one
        and journal.number not in continued
    ]


def _replay(disk: Disk, journals: list[_Link], start: Position | None, found: Recovered) -> None:
    """Apply the journals from `start` on (or all of them)."""
    if start is not None:
        # Older ones exist for the previous state file only.
        journals = [journal for journal in journals if journal.number >= start.journal]
    for index, journal in enumerate(journals):
        following = journals[index + 1] if index + 1 < len(journals) else None
        # The first one need not continue anything: the state file names it, or none is usable.
        first = index == 0 and (start is None or journal.number == start.journal)
        # Nor can one whose header is damaged, which `_apply` reports.
        if not first and journal.after not in (None, found.position):
            gap = (
                f"the journal {journal.path} continues after {_place(journal.after)}, but the batches "
                f"found end at {_place(found.position)}: a journal is missing"
            )
            if index == 0:
                _leave_out(disk, journals, found, gap)
                return
            found.report(f"{gap}, and the names of what it changed cannot be read")
        _apply(disk, journal, following, found)


def _place(position: Position | None) -> str:
    number, batches = position or Position(0, 0)
    return f"batch {batches} of journal {number}"


def _leave_out(disk: Disk, journals: list[_Link], found: Recovered, gap: str) -> None:
    """Use none of the journals, since they may be those of another state file."""
    names: dict[RecordName, None] = {}
    for journal in journals:
        for entry in JournalReader(disk, journal.path, journal.number).entries():
            if isinstance(entry, Batch):
                names.update((RecordName(table, key), None) for table, key, _ in entry.changes)
    found.report(f"{gap}, so everything after the gap is left out", names)
    found.damaged = [journal.path for journal in journals]
    found.rewrite = True


def _apply(disk: Disk, journal: _Link, following: _Link | None, found: Recovered) -> None:
    """Apply one journal, and report what is missing in it."""
    # Skip what the state file already contains, which may be a part of its first journal.
    same = journal.number == found.position.journal
    contained = found.position.batches if same else 0
    limit = journal.limit(following)
    missing = _Missing(journal, contained, limit, found)
    reader = JournalReader(disk, journal.path, journal.number)
    last = 0
    for entry in reader.entries():
        if isinstance(entry, Gap):
            missing.report(entry)
            continue
        # Beyond the position where the next journal continues, there are only batches whose commit
        # failed: the daemon has rejected them, so they must not come back.
        if limit is not None and entry.number > limit:
            break
        last = entry.number
        if last > contained:
            found.apply(entry.changes)
            found.journal_bytes += entry.size_bytes
    else:
        missing.report_end(reader, last)
    found.position = Position(journal.number, max(last if limit is None else limit, contained))


class _Missing:
    """Reports the batches that are missing in a journal, as far as they were durable and count.

    Args:
        contained: how many batches the state file contains: it does no harm if these are missing.
        limit: how many batches count, if that is known.
    """

    def __init__(self, journal: _Link, contained: int, limit: int | None, found: Recovered) -> None:
        self._path = journal.path
        self._contained = contained
        self._limit = limit
        self._found = found

    def report(self, gap: Gap) -> None:
        """Report a gap before a valid batch."""
        first = max(gap.first, self._contained + 1)
        last = gap.last if self._limit is None else min(gap.last, self._limit)
        if first > last:
            log.warning("%s has invalid bytes at %d; no batch is missing", self._path, gap.offset)
            return
        found = self._found
        found.report(
            f"the journal {self._path} is damaged at byte {gap.offset}: {_batches(first, last)} lost"
            f"{'' if gap.names else ', and the names of what they changed cannot be read'}",
            gap.names,
        )
        found.rewrite = True
        if self._path not in found.damaged:
            found.damaged.append(self._path)

    def report_end(self, reader: JournalReader, last: int) -> None:
        """Report what is behind the last valid batch."""
        rest = reader.rest
        offset = rest.offset or 0
        if self._limit is not None:
            self._report_if_missing(Gap(last + 1, self._limit, offset, rest.names))
        elif reader.lost_the_last:
            self._report_if_missing(Gap(last + 1, last + 1, offset, rest.names))
        elif rest.size_bytes:
            log.warning(
                "the end of the journal %s is left out: %d bytes of a batch that was never acknowledged",
                self._path,
                rest.size_bytes,
            )

    def _report_if_missing(self, gap: Gap) -> None:
        if gap.first <= gap.last:
            self.report(gap)


def _batches(first: int, last: int) -> str:
    return f"batch {first} is" if first == last else f"batches {first} to {last} are"
