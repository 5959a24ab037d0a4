"""The panel of a run as Markdown: losses by condition, then gains, for each split and view.

python scripts/results.py latentqa_eval [--root ROOT]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from evaluators.tables import METRICS_FILE
from pipelines.artifacts import ArtifactRoot
from pipelines.refs import Refs

GAINS = ("below_untrained", "grounded_gain", "information_gain")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ref")
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    words = parser.parse_args()
    found = Refs(ArtifactRoot(words.root)).resolve(words.ref, "evaluate")
    print(tables(json.loads((found.data / METRICS_FILE).read_text())["reading"]))


def tables(reading: dict[str, Any]) -> str:
    """Both tables for a `reading` tree; nats a token, 95 % intervals over controls."""
    cases = [(s, v, found) for s, views in reading.items() for v, found in views.items()]
    conditions = list(dict.fromkeys(name for _, _, found in cases for name in found["answer_loss"]))
    head = ["split", "view", "n", *conditions, "untrained right", "untrained other"]
    losses = [
        [
            split,
            view,
            str(found["grounded_gain"]["n"]),
            *(leaf(found["answer_loss"].get(name)) for name in conditions),
            *(leaf(found["untrained"].get(name)) for name in ("right", "other")),
        ]
        for split, view, found in cases
    ]
    gains = [
        [split, view, *(leaf(found[name]) for name in GAINS), found.get("best_uninformed") or "–"]
        for split, view, found in cases
    ]
    names = ["split", "view", "below untrained", "grounded gain", "information gain", "best rival"]
    return markdown(head, losses) + "\n\n" + markdown(names, gains)


def leaf(value: dict[str, Any] | None) -> str:
    """An estimate with its interval."""
    if value is None or value["estimate"] is None:
        return "–"
    if value["low"] is None:
        return f"{value['estimate']:.2f}"
    return f"{value['estimate']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
