"""Canonical JSON: one text, and so one digest, for each value; cache keys are made from it.

Two values have one text if and only if they are the same value: keys are sorted, no white space,
no NaN, and nothing without a stable identity (objects, sets, paths, dates, bytes) is let in.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_json(value: Any) -> bytes:
    """Encode `value` as canonical JSON in UTF-8.

    Raises:
        TypeError: a part of `value` has no stable identity; the text names the part, its type and
            what to write instead.
    """
    if not _has_identity(value):
        _refuse(value, "$")
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        _refuse(value, "$")
        raise


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _has_identity(value: Any) -> bool:
    """Tell whether every part of `value` has a stable identity."""
    # exact types: a subclass such as IntEnum prints as a number or as its name, by Python version
    kind = type(value)
    if kind is str or kind is int or value is None or kind is bool:
        return True
    if kind is list or kind is tuple:
        return all(map(_has_identity, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_has_identity, value.values()))
    return kind is float and math.isfinite(value)


def _refuse(value: Any, where: str) -> None:
    """Raise for the first part of `value` without a stable identity."""
    if value is None or type(value) in (bool, int):
        return
    if type(value) is str:
        _check_text(value, where)
        return
    if type(value) is float:
        if not math.isfinite(value):
            raise TypeError(f"{where}: {value} cannot be written as JSON; use null or a string.")
        return
    if type(value) in (list, tuple):
        for i, item in enumerate(value):
            _refuse(item, f"{where}[{i}]")
        return
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(
                    f"{where}: the key {key!r} is a {type(key).__name__}; JSON keys are strings."
                )
            _check_text(key, where)
            _refuse(item, f"{where}.{key}")
        return
    raise TypeError(
        f"{where}: a {type(value).__name__} has no stable identity; "
        "pass the plain value that decides the result (a string, a number, a list or a dict)."
    )


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(
            f"{where}: the text has half a surrogate pair ({text[error.start]!r} at "
            f"character {error.start}), which UTF-8 cannot encode; pass whole characters."
        ) from error
