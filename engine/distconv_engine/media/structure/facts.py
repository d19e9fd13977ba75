"""State what the bytes of a container say of its end."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Structure:
    """What a container's own lengths say of a file in which they all lie."""

    states_length: bool = True
    """Whether it states a length that the file was compared with."""
    unset_length: bool = False
    """A length in it was never written, as by a program that writes into a pipe."""
    is_continuous: bool = False
    """No packet of a transport stream is missing, as their counters show; it is only asked if needed."""
    trailer_at: int | None = None
    """Where bytes begin that belong to no part of it; None: there are none."""


STATED = Structure()
"""Of a container that ends where it states."""


def ends_at(end: int, size: int) -> Structure:
    """Return the structure of a container that states to end at byte `end` of `size`."""
    return Structure(trailer_at=end if end < size else None)
