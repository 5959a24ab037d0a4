"""Format numbers, sizes, durations and lists in one way everywhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_THIN = "\u202f"
_NO_BREAK = "\u00a0"
ABSENT = "–"
"""Stands for a number that was not measured."""


def number(value: float) -> str:
    """Format with two decimals and a true minus sign.

    >>> number(-0.456), number(-0.001)
    ('−0.46', '0.00')
    """
    text = f"{value:.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def interval(estimate: float | None, low: float | None, high: float | None) -> str:
    """Format an estimate with its interval, as one word that no line break divides.

    Args:
        estimate: None where nothing was measured.
        low: None where there are too few controls for an interval.
        high: likewise.

    >>> interval(0.7412, 0.66, 0.82) == "0.74\u00a0[0.66,\u00a00.82]"
    True
    >>> interval(0.7412, None, None), interval(None, None, None)
    ('0.74', '–')
    """
    if estimate is None:
        return ABSENT
    if low is None or high is None:
        return number(estimate)
    return f"{number(estimate)}{_NO_BREAK}[{number(low)},{_NO_BREAK}{number(high)}]"


def share(value: float | None) -> str:
    """Format a fraction as a percentage.

    >>> share(0.125), share(None)
    ('12 %', '–')
    """
    return ABSENT if value is None else f"{value:.0%}".replace("%", " %")


def count(value: float) -> str:
    """Group thousands by a thin space; a number with a fraction below 1000 keeps three digits."""
    if abs(value) < 1000 and not float(value).is_integer():
        return f"{value:.3g}"
    return f"{value:,.0f}".replace(",", _THIN)


def size(value: float) -> str:
    """Format bytes in the largest decimal unit that leaves a number of at least 1.

    >>> size(21_234_567), size(999.9)
    ('21.2 MB', '1 kB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:  # which rounds to 1000
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float) -> str:
    """Format seconds as `8.4 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shortened(text: str, *, most: int = 80) -> str:
    """Cut what an error quotes, as a wrong file may be long and hold anything.

    >>> shortened("12345", most=4), shortened("1234", most=4)
    ('123…', '1234')
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def unreadable(path: object, error: OSError | UnicodeDecodeError) -> str:
    """Say in one sentence why a text file of a user's was not read.

    >>> unreadable("a.yaml", IsADirectoryError(21, "Is a directory"))
    'a.yaml: cannot be read: is a directory. Name a text file.'
    """
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is no UTF-8 text (byte {error.start}). Name a text file."
    said = error.strerror or type(error).__name__
    return f"{path}: cannot be read: {said[0].lower()}{said[1:]}. Name a text file."


def program() -> str:
    """Return what to type for `latentqa` here: its path, where a shell would not find it."""
    script = Path(sys.argv[0])
    if script.name != "latentqa" or shutil.which("latentqa"):
        return "latentqa"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def join(words: Sequence[str]) -> str:
    """Join words as `a`, `a and b` or `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def sort_known(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Sort distinct names in a given order, unknown ones after it by name.

    A variant follows the name that it is of.

    >>> sort_known(["zeta", "system+visible", "control", "system"], ["control", "system"])
    ['control', 'system', 'system+visible', 'zeta']
    """
    return sorted(set(names), key=lambda name: _rank(name, order))


def sort_pairs(
    pairs: Iterable[tuple[str, str]], first: Sequence[str], second: Sequence[str]
) -> list[tuple[str, str]]:
    """Sort distinct pairs of names, such as splits and views, as `sort_known` sorts names."""
    return sorted(set(pairs), key=lambda pair: (_rank(pair[0], first), _rank(pair[1], second)))


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    known = name.split("+")[0]
    return (order.index(known) if known in order else len(order)), name
