"""Convert a drop's bytes to the JSON object that `POST /jobs/` takes.

Only the form is checked, that there is one object; the daemon checks its fields.
"""

import math
import tomllib
from typing import cast

import msgspec

from distconv_spool.errors import BadDrop

DROP_BYTES_MAX = 262_144

_BOM = b"\xef\xbb\xbf"
_LINE_DOTS_MAX = 128
"""tomllib's time is quadratic in the parts of a dotted key: 100,000 dots would take minutes."""
_TOO_LONG = "An integer has too many digits."


def to_json(name: str, data: bytes) -> bytes:
    """Return a drop's fields as a JSON object.

    Args:
        name: the drop's file name; its suffix says what the data is.
        data: the file's content.

    Raises:
        BadDrop: it is not a single object; the text says what is wrong and where.
    """
    data = data.removeprefix(_BOM)
    if name.lower().endswith(".toml"):
        return toml_to_json(data)
    _check_json_object(data)
    return data


def object_to_json(fields: object) -> bytes:
    """Return a mapping of plain values as a JSON object; raises `BadDrop` for anything else."""
    if not isinstance(fields, dict):
        raise BadDrop("Expected one object with the names and values of a job's fields.")
    try:
        _require_finite(cast(object, fields))
        return msgspec.json.encode(fields)
    except (TypeError, UnicodeEncodeError) as error:
        raise BadDrop(f"A value cannot be written as JSON: {error}.") from None
    except (ValueError, OverflowError):
        raise BadDrop(_TOO_LONG) from None
    except RecursionError:
        raise BadDrop("The fields are nested too deeply.") from None


def toml_to_json(data: bytes) -> bytes:
    """Return a TOML document as a JSON object; raises `BadDrop`."""
    if any(line.count(b".") > _LINE_DOTS_MAX for line in data.split(b"\n")):
        raise BadDrop(f"The TOML has a line with more than {_LINE_DOTS_MAX} dots.")
    try:
        return object_to_json(tomllib.loads(data.decode()))
    except UnicodeDecodeError as error:
        raise BadDrop(f"The TOML is not UTF-8 (byte {error.start}).") from None
    except tomllib.TOMLDecodeError as error:
        raise BadDrop(f"The TOML is malformed: {error}.") from None
    except (ValueError, OverflowError):
        # Python refuses to convert so many digits, and tomllib does not catch that error.
        raise BadDrop(_TOO_LONG) from None
    except RecursionError:
        raise BadDrop("The TOML is nested too deeply.") from None


def _check_json_object(data: bytes) -> None:
    try:
        data.decode()
        decoded: object = msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        raise BadDrop(f"The JSON is not UTF-8 (byte {error.start}).") from None
    except msgspec.DecodeError as error:
        raise BadDrop(f"{error}.") from None
    except RecursionError:
        raise BadDrop("The JSON is nested too deeply.") from None
    if not isinstance(decoded, dict):
        raise BadDrop("The JSON is not an object: expected { … } with the fields of one job.")


def _require_finite(value: object) -> None:
    """Reject NaN and infinity, which TOML allows and JSON does not: msgspec would write null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadDrop(f"{value} is not a number that JSON can represent.")
    if isinstance(value, dict):
        for inner in cast(dict[object, object], value).values():
            _require_finite(inner)
    elif isinstance(value, list | tuple):
        for inner in cast(list[object], value):
            _require_finite(inner)
