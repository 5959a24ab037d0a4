"""Strict JSON: refuse what the standard refuses, and say where and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from core.errors import DataError

MOST_LEVELS = 100
"""Most objects and lists within one another: what walks through them has an end too."""


def read_json(path: Path) -> Any:
    """Read a JSON file; an object that repeats a key comes as `RepeatedKeys`.

    Raises:
        DataError: the file cannot be read or is no JSON; the text has line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, data[: error.start].decode(errors="replace"), "not UTF-8 text", error)
    try:
        return parse_json(text)
    except InvalidJSON as error:
        if error.at is None:
            raise DataError(f"{path}: not read as JSON: {error.detail}.") from error
        _refuse(path, text[: error.at], error.detail, error)


def parse_json(text: str, *, nan_is_null: bool = False) -> Any:
    """Parse a JSON text; an object that repeats a key comes as `RepeatedKeys`.

    Args:
        text: of the value.
        nan_is_null: take NaN for null, as tables have it where a value is missing.

    Raises:
        InvalidJSON: it is none, or holds NaN or an infinity, which Python's reader would let
            through.
    """
    constant = _null_if_nan if nan_is_null else _no_constant
    try:
        return load_json(text, object_pairs_hook=_object, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise InvalidJSON(error.msg, error.pos) from error
    except _ConstantError as error:
        raise InvalidJSON(f"{error} is no JSON value", _constant_at(text)) from error
    except ValueError as error:  # such as an integer of more digits than Python converts
        raise InvalidJSON(str(error)) from error


def load_json(text: str | bytes, **hooks: Any) -> Any:
    """Parse a JSON text as Python's reader does, NaN and repeated keys included, up to a depth.

    Args:
        text: of the value.
        hooks: as `json.loads` takes them.

    Raises:
        ValueError: it is none, or has more than `MOST_LEVELS` objects and lists within one another.
    """
    try:
        value = json.loads(text, **hooks)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if isinstance(text, bytes):
        opened = text.count(b"[") + text.count(b"{")
    else:
        opened = text.count("[") + text.count("{")
    if opened > MOST_LEVELS and is_deep(value):
        raise ValueError("nested too deeply")
    return value


def is_deep(value: Any) -> bool:
    """Tell whether more than `MOST_LEVELS` objects and lists lie within one another."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [
            each for item in inner for each in (item.values() if isinstance(item, dict) else item)
        ]
        if not inner:
            return False
    return True


def json_line(value: Any) -> str:
    """Encode `value` as one line of JSON, escaped where UTF-8 cannot hold it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if fits_utf8(text) else json.dumps(value)


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which a key stands twice, with every pair as it stood."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class InvalidJSON(ValueError):
    """A text that is no JSON.

    Attributes:
        detail: what is wrong, in words.
        at: where in the text, in characters; None where that is not known.
    """

    def __init__(self, detail: str, at: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.at = at


class _ConstantError(ValueError):
    """NaN or an infinity, which Python's reader would let through."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else RepeatedKeys(pairs)


def _no_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


def _null_if_nan(name: str) -> None:
    if name != "NaN":
        _no_constant(name)


def _constant_at(text: str) -> int:
    # strings are matched first, so that the word inside one is passed over
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)', text, re.DOTALL):
        if match.group(1):
            return match.start(1)
    return 0


def _refuse(path: Path, before: str, what: str, error: Exception) -> NoReturn:
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    raise DataError(
        f"{path}: not valid JSON at line {line}, column {column}: {what}. Correct the file "
        "and run again."
    ) from error


def has_repeated_key(value: Any) -> bool:
    """Tell whether an object anywhere in `value` has a key twice."""
    if isinstance(value, dict):
        return isinstance(value, RepeatedKeys) or any(map(has_repeated_key, value.values()))
    return isinstance(value, list) and any(map(has_repeated_key, value))


def fits_utf8(text: str) -> bool:
    """Tell whether UTF-8 can hold `text`; half of a surrogate pair does not fit."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_finite_numbers(value: Any) -> bool:
    """Tell whether every number in `value` is finite."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def json_type_name(value: Any) -> str:
    """Name the JSON type of `value` in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")
