"""What an engine finds out at its first start, so that engines under test start immediately."""

from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """The content of the files in which an engine keeps it."""

    benchmark: bytes
    self_test: bytes

    def keep_in(self, work: Path) -> None:
        """Write it into the work directory of an engine."""
        (work / "benchmark.json").write_bytes(self.benchmark)
        (work / "self-test.json").write_bytes(self.self_test)
