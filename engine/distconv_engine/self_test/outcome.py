"""Define the outcome of a self-test, and read the one that is kept in the work directory."""

from pathlib import Path

import msgspec

from distconvd.model import Capability

FILE = "self-test.json"
"""The outcome's name in the work directory."""


class Outcome(msgspec.Struct, frozen=True):
    """Which clips were converted rightly."""

    key: str
    """What the outcome is valid for: see `outcome_key`."""
    failed: dict[Capability, str] = {}
    """Why the others were not, in words."""

    @property
    def passed(self) -> list[str]:
        """The capabilities that a heartbeat lists."""
        return [name.value for name in Capability if name not in self.failed]


def maybe_outcome(cache: Path) -> Outcome | None:
    """Return the outcome that is kept at `cache`, if there is one."""
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None  # no outcome, or not a valid one: test
