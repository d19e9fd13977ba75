"""Define an output: encoded, not yet proved, not yet published."""

from dataclasses import dataclass
from typing import Protocol

from distconv_engine.checks.output import Evidence, Verified
from distconv_engine.checks.registry import Check
from distconv_engine.encode.command import Request
from distconv_engine.encode.run import Encoded


@dataclass(frozen=True, slots=True)
class Published:
    """Where an output was published."""

    url: str
    checks: tuple[Check, ...] = ()
    """What publishing it in this way has shown."""
    notes: tuple[str, ...] = ()
    """What it had to do without, to be published in this way."""


class Output(Protocol):
    """What a sink has encoded with one encoder."""

    @property
    def request(self) -> Request:
        """What was encoded."""
        ...

    @property
    def encoded(self) -> Encoded:
        """What the encoder counted."""
        ...

    async def read_evidence(self) -> Evidence:
        """Return what independent readers found in it."""
        ...

    async def publish(self, verified: Verified) -> Published:
        """Publish it whole, or not at all: nobody sees it before."""
        ...
