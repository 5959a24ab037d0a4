"""What a decoder reads as Markdown: losses by condition, then gains, for each split and view; and
identification, where it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.wording import ABSENT
from pipelines.reports.run.files import Leaf, leaf_of
from pipelines.reports.tables import markdown

GAINS = (
    *("hidden_gain", "below_rivals", "share_recovered"),
    *("below_untrained", "grounded_gain", "information_gain"),
)


def reading_tables(reading: Mapping[str, Any]) -> str:
    """The tables of a `reading` tree, with 95 % intervals over controls.

    Losses and their gains are in nats a token, identification in shares of items.
    """
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
            *(estimate(found.get(name)) for name in GAINS),
            found.get("best_uninformed") or "–",
        ]
        for split, view, found in cases
    ]
    names = ["split", "view", *(name.replace("_", " ") for name in GAINS), "best uninformed"]
    identified = [(s, v, one["identification"]) for s, v, one in cases if "identification" in one]
    third = [_identification(identified)] if identified else []
    return "\n\n".join([markdown(head, losses), markdown(names, gains), *third])


def _identification(cases: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    given = list(dict.fromkeys(name for _, _, found in cases for name in found["accuracy"]))
    numbers = (
        "chance",
        "hidden_gain",
        "grounded_gain",
        "information_gain",
    )
    head = ["split", "view", "items", "n", *given, *(name.replace("_", " ") for name in numbers)]
    lines = [
        [
            split,
            view,
            str(found["asked"]),
            str(found["chance"]["n"]),
            *(estimate(found["accuracy"].get(name)) for name in given),
            *(estimate(found.get(name)) for name in numbers),
        ]
        for split, view, found in cases
    ]
    return markdown(head, lines)


def estimate(value: Mapping[str, Any] | Leaf | None) -> str:
    """Format an estimate with its interval; a dash where nothing was measured."""
    leaf = value if isinstance(value, Leaf) else leaf_of(value)
    return ABSENT if leaf is None else str(leaf)
