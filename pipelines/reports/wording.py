"""Numbers as a reader wants them: counts, nats, bytes, durations, lists of names."""

from __future__ import annotations

from collections.abc import Sequence

_THIN = "\u202f"


def number(value: float) -> str:
    """Two decimals, with a true minus sign."""
    text = f"{value:.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def count(value: float) -> str:
    """Thousands set apart by a thin space; a small fraction keeps three digits."""
    if abs(value) < 1000 and not float(value).is_integer():
        return f"{value:.3g}"
    return f"{value:,.0f}".replace(",", _THIN)


def size(value: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def duration(seconds: float) -> str:
    """`8.4 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def join(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
