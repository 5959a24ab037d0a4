"""What a decoder reads as Markdown: losses by condition, then gains, for each split and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GAINS = ("below_untrained", "grounded_gain", "information_gain")


def reading_tables(reading: Mapping[str, Any]) -> str:
    """Both tables for a `reading` tree; nats a token, 95 % intervals over controls."""
    cases = [(s, v, found) for s, views in reading.items() for v, found in views.items()]
    conditions = list(dict.fromkeys(name for _, _, found in cases for name in found["answer_loss"]))
    head = ["split", "view", "n", *conditions, "untrained right", "untrained other"]
    losses = [
        [
            split,
            view,
            str(found["grounded_gain"]["n"]),
            *(estimate(found["answer_loss"].get(name)) for name in conditions),
            *(estimate(found["untrained"].get(name)) for name in ("right", "other")),
        ]
        for split, view, found in cases
    ]
    gains = [
        [
            split,
            view,
            *(estimate(found[name]) for name in GAINS),
            found.get("best_uninformed") or "–",
        ]
        for split, view, found in cases
    ]
    names = ["split", "view", "below untrained", "grounded gain", "information gain", "best rival"]
    return markdown(head, losses) + "\n\n" + markdown(names, gains)


def estimate(value: Mapping[str, Any] | None) -> str:
    """An estimate with its interval."""
    if value is None or value["estimate"] is None:
        return "–"
    if value["low"] is None:
        return f"{value['estimate']:.2f}"
    return f"{value['estimate']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
