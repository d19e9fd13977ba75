"""What an audit says: one fault, where it is, and what to do about it."""

from typing import NamedTuple

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Finding(NamedTuple):
    """One fault.

    Attributes:
        kind: the rule that is broken, one of `invariants.REMEDIES`.
        subject: whose record it is: `job 1754_1`, `engine attic`, `archive 17540`, `store`.
        told: what is wrong with it.
        is_archived: it is a job that nothing changes any more.
    """

    kind: str
    subject: str
    detail: str
    is_archived: bool = False

    def line(self, remedy: str) -> str:
        """Return it on one line, whatever an id or a message holds; `ID` in a command becomes the
        job's."""
        todo = remedy.replace(" ID`", f" {self.subject.partition(' ')[2]}`")
        text = f"{self.subject}: {self.detail} [{self.kind}]. {todo}"
        return text.translate(_CONTROLS)
