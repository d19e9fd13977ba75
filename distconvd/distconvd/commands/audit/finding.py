"""Describe one fault that an audit has found: where it is, and what to do about it."""

from typing import NamedTuple

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Finding(NamedTuple):
    """One fault.

    Attributes:
        kind: the broken rule, one of `invariants.REMEDIES`.
        subject: the record: `job 1754_1`, `engine attic`, `archive 17540`, `store`.
        detail: what is wrong with it.
        is_archived: it is an archived job, which cannot be changed any more.
    """

    kind: str
    subject: str
    detail: str
    is_archived: bool = False

    def line(self, remedy: str) -> str:
        """Return the finding on one line, with control characters escaped; `ID` in a command of the
        remedy is replaced by the job's id."""
        todo = remedy.replace(" ID`", f" {self.subject.partition(' ')[2]}`")
        text = f"{self.subject}: {self.detail} [{self.kind}]. {todo}"
        return text.translate(_CONTROLS)
