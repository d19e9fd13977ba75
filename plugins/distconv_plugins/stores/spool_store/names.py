"""Name the files of the spool store.

    DIRECTORY/
      format.json               the kind of store, and the version of its format
      lock
      jobs/3f/1754_1.json       one record: table, shard, key
      engines/ attempts/ meta/
      tmp/                      files that are being written, and manifests of batches
      corrupt/                  invalid files, kept for a person to look at

A key that consists of small letters, digits, `_`, `-` and inner dots names its file. Any other key
(too long, or with capitals, which some file systems do not distinguish) is shortened to its plain
characters and made unique by a digest; the file itself contains the key.
"""

import hashlib
import re
from pathlib import Path

from distconvd.disk import Disk
from distconvd.store import TABLES, RecordName, Table

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
        """Return the numbers of the batches that have a manifest, in order."""
        names = (Path(name) for name in disk.listdir(self.tmp))
        return sorted(int(name.stem) for name in names if name.suffix == ".batch")

    def named_by(self, corrupt: str) -> tuple[RecordName, ...]:
        """Return the record that a file in `corrupt/` had, if its name is that of the key."""
        for table in TABLES:
            key = corrupt.removeprefix(f"{table}-").removesuffix(".json")
            if corrupt == f"{table}-{key}.json" and _PLAIN.fullmatch(key):
                return (RecordName(table, key),)
        return ()

    def strangers(self, disk: Disk) -> list[str]:
        """Return the names in the root that do not belong to a spool store."""
        ours = {"format.json", "format.json.new", "lock", "tmp", "corrupt", *TABLES}
        return sorted(set(disk.listdir(self.root)) - ours)
