"""Explain what is wrong with a value, from msgspec's message and the field's type.

A message such as "Expected `int` <= 1000 - at `$.max_retries`" names the place and the bound. The
words are those of the type at that place (see `model.bounds`), or else follow from the bound.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from distconvd.model.bounds import WORDS, WRONG_TYPE

_PLACE = re.compile(r" - at (`key` in )?`\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[[^]]*\]")
_MISSING = re.compile(r"missing required field `([^`]+)`$")
_NUMBER = re.compile(r"Expected `(\w+)` (>=|>|<=|<) (\S+)$")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)$")
_PATTERN = re.compile(r"Expected `str` matching regex ")
_BEYOND = {
    ">=": "must be at least",
    ">": "must be more than",
    "<=": "must be at most",
    "<": "must be less than",
}
_KEY = "key"
_ENTRY = "[...]"


class TypeFault(NamedTuple):
    """What is wrong with a value that cannot be decoded."""

    field: str
    """Dotted; names the field and not the entry in it: `labels` for `labels[...]`. Empty: the whole."""
    message: str
    """msgspec's message without the place."""
    bound: str | None = None
    """If a bound is exceeded, the rest of a sentence that begins with the field's name."""
    wrong_type: str | None = None
    """The same for a value of another type, or a missing one, if the field has words for that."""
    is_missing: bool = False


def explain(error: msgspec.ValidationError, kind: Any) -> TypeFault:
    """Return what `error` says of a value that should have been a `kind`."""
    text = str(error)
    found = _PLACE.search(text)
    message = _PLACE.sub("", text)
    steps = [step[1] or _ENTRY for step in _STEP.finditer(found[2])] if found else []
    missing = _MISSING.search(message)
    if missing is not None:
        steps.append(missing[1])
    field = ".".join(step for step in steps if step != _ENTRY)
    if found is not None and found[1]:
        steps.append(_KEY)
    own_words = _words_at(kind, steps)
    if _is_of_bound(message):
        return TypeFault(field, message, bound=own_words.get(WORDS) or _words_of(message))
    wrong_type = own_words.get(WRONG_TYPE)
    return TypeFault(field, message, wrong_type=wrong_type, is_missing=missing is not None)


def maybe_wrong_type(kind: Any, field: str) -> str | None:
    """Return what a field of a struct says of a value of another type, if it says anything."""
    return _words_at(kind, [field]).get(WRONG_TYPE)


def _is_of_bound(message: str) -> bool:
    return any(pattern.match(message) for pattern in (_NUMBER, _LENGTH, _PATTERN))


def _words_of(message: str) -> str:
    """Return the words that follow from the bound itself."""
    number, length = _NUMBER.match(message), _LENGTH.match(message)
    if number is not None:
        name, sign, limit = number.groups()
        if sign == ">=" and float(limit) == 0:
            return f"must be a non-negative {'integer' if name == 'int' else 'number'}"
        return f"{_BEYOND[sign]} {limit if name == 'int' else f'{float(limit):g}'}"
    if length is not None:
        name, sign, limit = length.groups()
        if name == "str":
            return f"is {'longer' if sign == '<=' else 'shorter'} than {limit} characters"
        return f"has {'more' if sign == '<=' else 'fewer'} than {limit} entries"
    return "must match the regular expression " + _PATTERN.sub("", message)


def _words_at(kind: Any, steps: list[str]) -> dict[str, str]:
    """Return the words of the type that the steps lead to: field names, entries or the keys."""
    hints = [kind]
    for step in steps:
        hints = [inner for hint in hints for inner in _inside(hint, step)]
    words: dict[str, str] = {}
    for hint in hints:
        for part in _alternatives(hint):
            for note in getattr(part, "__metadata__", ()):
                words |= getattr(note, "extra", None) or {}
    return words


def _inside(hint: Any, step: str) -> Iterator[Any]:
    """Yield the types that one step leads to."""
    for part in _alternatives(hint):
        bare = get_args(part)[0] if get_origin(part) is Annotated else part
        arguments = get_args(bare)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            if step in bare.__struct_fields__:
                yield _hints_of(bare)[step]
        elif get_origin(bare) is dict:
            yield arguments[0 if step == _KEY else 1]
        elif get_origin(bare) is list:
            yield arguments[0]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; a type that is none is its only member."""
    is_plain = get_origin(hint) in (Annotated, dict, list, None)
    return (hint,) if is_plain else get_args(hint)


@cache
def _hints_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
