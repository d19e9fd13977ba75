"""Keep the damage that was found in a file until the operator acknowledges it.

After damage, the state file is rewritten with what is whole, and the damaged journal is set aside; so
without this file, the next start would find nothing wrong, and nobody would learn what was lost.

    {"format":1,"damage":[{"found_at":"2026-01-01T00:00:00Z","text":"…","touched":[["jobs","1754_1"]]}]}
"""

import time
from collections.abc import Sequence

import msgspec

from distconv_plugins.stores.encoded import BAD_JSON
from distconv_plugins.stores.json_store.names import Names
from distconvd.disk import Disk, read_all, write_all
from distconvd.store import Damage, RecordName, Table

FORMAT = 1
KEPT_MAX = 1000
"""How many damages the file keeps; later ones are only logged."""


class _Found(msgspec.Struct):
    found_at: str
    text: str
    touched: list[tuple[Table, str]]


class _Document(msgspec.Struct):
    format: int
    damage: list[_Found]


_document = msgspec.json.Decoder(_Document)


class DamageFile:
    """The file next to a state file; see the module. Calls block and raise `OSError`."""

    def __init__(self, disk: Disk, names: Names) -> None:
        self._disk = disk
        self._names = names
        self._found: list[_Found] = []

    @property
    def damage(self) -> list[Damage]:
        """What the file contains."""
        return [
            Damage(
                f"{found.text} (found at {found.found_at})",
                tuple(RecordName(table, key) for table, key in found.touched),
            )
            for found in self._found
        ]

    def read(self) -> None:
        """Read the file, if there is one."""
        path = self._names.damage
        try:
            self._found = _document.decode(read_all(self._disk, path)).damage
        except FileNotFoundError:
            self._found = []
        except BAD_JSON:
            text = f"the list of earlier damage, {path}, cannot be read"
            self._found = [_Found(_now(), text, [])]

    def add(self, damage: Sequence[Damage]) -> None:
        """Add damage, durably; what is there already is not added again."""
        known = {found.text for found in self._found}
        fresh = [
            _Found(_now(), text, [(name.table, name.key) for name in touched])
            for text, touched in damage
            if text not in known
        ]
        found = [*self._found, *fresh][:KEPT_MAX]
        if len(found) > len(self._found):
            self._write(found)

    def _write(self, found: list[_Found]) -> None:
        new = self._names.damage_new
        try:
            self._disk.unlink(
                new
            )  # of a run that failed: never write again to a file of unknown state
        except FileNotFoundError:
            pass
        file = self._disk.open(new, "create")
        try:
            write_all(file, msgspec.json.encode(_Document(FORMAT, found)) + b"\n")
            file.fsync()
        finally:
            file.close()
        self._disk.rename(new, self._names.damage)
        self._disk.fsync_dir(self._names.directory)
        self._found = found

    def acknowledge(self) -> None:
        """Set the file aside, durably."""
        if not self._found:
            return
        self._names.move_aside(self._names.damage, "acknowledged")
        self._disk.fsync_dir(self._names.directory)
        self._found = []


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
