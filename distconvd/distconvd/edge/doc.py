"""Describe what a route accepts and answers, as types, for readers of the API.

The description is stored with the handler in each `Route`, so that there is one table and not two
that drift apart. `api.openapi` turns it into a document; what follows from the route itself (the
key, the body's bounds, the captures of its pattern) is not repeated here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distconvd.errors import DistconvError

Where = Literal["query", "header"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of the query, or one header, that a route reads; all are optional."""

    name: str
    where: Where
    meaning: str
    kind: Any = str
    """Its type, including bounds: `Annotated[int, msgspec.Meta(ge=1)]`."""
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply that is not an error."""

    meaning: str
    kind: Any = None
    """The type of its body; None: no type can describe it."""
    content_type: str | None = "application/json"
    """None: it has no body."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The headers that it always carries in addition to `X-Request-Id`, with their meanings."""
    maybe_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The headers that it sometimes carries, with their meanings."""
    others: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further content types, each with an example as sent."""
    example: Any = None


@dataclass(frozen=True, slots=True)
class Doc:
    """What one route accepts and answers."""

    answers: Mapping[int, Answer]
    """By status."""
    errors: tuple[type[DistconvError], ...] = ()
    """Problems of this route, in addition to those of every route of its kind."""
    parameters: tuple[Parameter, ...] = ()
    request: Any = None
    """The type of its body."""
    request_required: bool = True
    examples: tuple[Any, ...] = ()
    """Bodies that it accepts."""
    problem_headers: Mapping[int, Mapping[str, str]] = field(
        default_factory=dict[int, Mapping[str, str]]
    )
    """By status: headers that its problems sometimes carry, with their meanings."""
    description: str = ""
    """What the summary has no space for."""
