"""The tree of the spool store: where each record's file is, and what the other names mean.

    DIRECTORY/
      format.json               which store and which version of its format this is
      lock
      jobs/3f/1754_1.json       one record: table, shard, key
      engines/ attempts/ meta/
      tmp/                      files that are being written, and manifests of batches
      corrupt/                  files that could not be understood, kept for a person to look at

A key names its file where it is made of small letters, digits, `_`, `-` and inner dots. Any other
(too long, or with capitals, which some file systems do not tell apart) is shortened to what is
readable of it, and told from its likes by a digest; the file itself holds the key.
"""

import hashlib
import re
from pathlib import Path

from distconvd.disk import Disk
from distconvd.store import TABLES, Table

_PLAIN = re.compile(r"[a-z0-9_-]([a-z0-9_.-]{0,118}[a-z0-9_-])?")
_UNREADABLE = re.compile(r"[^a-z0-9_-]+")


class Tree:
    """Paths in one spool store."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self.format = directory / "format.json"
        self.lock = directory / "lock"
        self.tmp = directory / "tmp"
        self.corrupt = directory / "corrupt"

    def record(self, table: Table, key: str) -> Path:
        """Return the path of a record."""
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        name = key
        if not _PLAIN.fullmatch(key):
            name = f"{_UNREADABLE.sub('-', key.lower())[:80]}~{digest}"
        return self.root / table / digest[:2] / f"{name}.json"

    def records(self, disk: Disk, table: Table) -> list[Path]:
        """Return the paths of all records of a table."""
        top = self.root / table
        if not disk.is_directory(top):
            return []
        shards = [top / name for name in disk.listdir(top)]
        return [
            shard / name
            for shard in shards
            if disk.is_directory(shard)
            for name in disk.listdir(shard)
        ]

    def new(self, batch: int, index: int) -> Path:
        """Return the path of a record that is being written."""
        return self.tmp / f"{batch}-{index}.json"

    def manifest(self, batch: int) -> Path:
        """Return the path of the manifest of a batch."""
        return self.tmp / f"{batch}.batch"

    def manifests(self, disk: Disk) -> list[int]:
        """Return the numbers of the batches whose manifests are there, in order."""
        names = (Path(name) for name in disk.listdir(self.tmp))
        return sorted(int(name.stem) for name in names if name.suffix == ".batch")

    def strangers(self, disk: Disk) -> list[str]:
        """Return names that no spool store has."""
        ours = {"format.json", "format.json.new", "lock", "tmp", "corrupt", *TABLES}
        return sorted(set(disk.listdir(self.root)) - ours)
