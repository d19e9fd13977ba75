"""What a route takes and answers, as types: the part of the route table that is for readers.

It stands beside the handler in each `Route`, so that there is one table and not two that drift
apart. `api.openapi` turns it into a document; whatever follows from the route itself (the key, the
body's bounds, the captures of its pattern) is not repeated here.
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
    """Its type, bounds included: `Annotated[int, msgspec.Meta(ge=1)]`."""
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply that is no error."""

    meaning: str
    kind: Any = None
    """The type of its body; None: it has no body that a type could tell."""
    content_type: str | None = "application/json"
    """None: it has no body."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it always carries besides `X-Request-Id`, with the meaning of each."""
    maybe_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it carries sometimes."""
    others: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further content types, each with an example as it is on the wire."""
    example: Any = None


@dataclass(frozen=True, slots=True)
class Doc:
    """What one route takes and answers."""

    answers: Mapping[int, Answer]
    """By status."""
    errors: tuple[type[DistconvError], ...] = ()
    """Problems of the route's own, besides those that any of its kind may answer with."""
    parameters: tuple[Parameter, ...] = ()
    request: Any = None
    """The type of its body."""
    request_required: bool = True
    examples: tuple[Any, ...] = ()
    """Bodies that it takes."""
    problem_headers: Mapping[int, Mapping[str, str]] = field(
        default_factory=dict[int, Mapping[str, str]]
    )
    """What its problems of a status carry sometimes, with the meaning of each."""
    description: str = ""
    """More than the summary, for where there is more to say."""
