"""The reader of JSON files: whatever is wrong with a text, it raises one type of error.

Python's reader fails in several ways (text that is nested too deep, numbers of thousands of digits, bytes that are not
UTF-8), takes NaN and Infinity, which JSON does not have, and keeps the last of two values that have the same key.
`data/rows.py` reads the lines of a .jsonl, in which other programs write NaN for a missing value.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEEPEST = 100  # levels of lists and objects


class JsonError(ValueError):
    """A text that is not JSON, or says two things at once; the message says what is wrong with it."""


def parse(content: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JsonError: it is not JSON, it is nested too deep, or an object has two different values for one key.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unrepeated, parse_constant=_refuse_constant)
        _check_depth(value)
        return value
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not UTF-8 ({error})") from None
    except RecursionError:
        raise JsonError("it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"it is not JSON: {error}") from None
    except ValueError as error:  # Python limits the digits of a whole number
        raise JsonError(f"it has a number that is too long ({error})") from None


def parse_object(content: str | bytes) -> dict[str, Any]:
    """The same for a text that must be one object, `{...}`."""
    value = parse(content)
    if not isinstance(value, dict):
        raise JsonError(f"it must be a JSON object, {{...}}; it is {_kind(value)}")
    return value


def read_object(file: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        OSError: it cannot be read.
        JsonError: it does not hold one JSON object.
    """
    return parse_object(file.read_bytes())


def _check_depth(value: Any) -> None:
    """Refuses what Python can read, but what functions that call themselves cannot walk through."""
    level, depth = [value], 0
    while level:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [value for values in inner for value in values], depth + 1
        if depth > DEEPEST:
            raise JsonError("it is nested too deep")


def unrepeated(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object for `json.loads`, as its `object_pairs_hook`; raises JsonError if a key has two values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        _check_same(pairs, values)
    return values


def _check_same(pairs: Sequence[tuple[str, Any]], values: dict[str, Any]) -> None:
    """Refuses two values for one key, of which only one could be used."""
    for key, value in pairs:
        if repr(value) != repr(values[key]):
            raise JsonError(f"it has the key {key!r} twice, with different values; keep one of them")


def _refuse_constant(name: str) -> Any:
    raise JsonError(f"it has {name}, which is not a number in JSON")


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text"}
    return kinds.get(type(value), "a list")
