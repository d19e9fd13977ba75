"""Name the files of the json store: all next to the state file, all beginning with its name."""

import re
import time
from pathlib import Path

from distconvd.disk import Disk, read_all, write_all


class Names:
    """Paths that belong to one state file."""

    def __init__(self, disk: Disk, state: Path) -> None:
        self.state = state
        self.directory = state.parent
        self.new = self._sibling("new")
        """The next state file while it is written."""
        self.previous = self._sibling("previous")
        self.linked = self._sibling("previous-new")
        """A link to the state file that is about to become the previous one."""
        self.lock = self._sibling("lock")
        self.damage = self._sibling("damage")
        """The damage that the operator has not acknowledged yet."""
        self.damage_new = self._sibling("damage-new")
        self._disk = disk
        self._journal = re.compile(re.escape(state.name) + r"\.journal-(\d{1,18})")

    def _sibling(self, word: str) -> Path:
        return self.directory / f"{self.state.name}.{word}"

    def journal(self, number: int) -> Path:
        """Return the path of journal `number`."""
        return self._sibling(f"journal-{number:08d}")

    def journals(self) -> list[int]:
        """Return the numbers of the existing journals, in order."""
        matches = map(self._journal.fullmatch, self._disk.listdir(self.directory))
        return sorted(int(match[1]) for match in matches if match)

    def exists(self, path: Path) -> bool:
        """Whether a file exists."""
        return path.name in self._disk.listdir(self.directory)

    def aside(self, path: Path, why: str) -> Path:
        """Return an unused name for a file that is kept for a person to look at."""
        taken = set(self._disk.listdir(self.directory))
        stem = name = f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        count = 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        return self.directory / name

    def move_aside(self, path: Path, why: str) -> Path:
        """Rename a file so that the store ignores it, and return its new path."""
        target = self.aside(path, why)
        self._disk.rename(path, target)
        return target

    def copy_aside(self, path: Path, why: str) -> Path:
        """Keep a copy, as a hard link if possible, and return its path."""
        target = self.aside(path, why)
        try:
            self._disk.link(path, target)
        except OSError:
            copy = self._disk.open(target, "create")
            try:
                write_all(copy, read_all(self._disk, path))
                copy.fsync()
            finally:
                copy.close()
        return target
