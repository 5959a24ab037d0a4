"""Decoders of several experiments, each tested on the rows of all of them, as Markdown.

python scripts/crossed.py experiments/quickstart.yaml experiments/published_equal.yaml --data FOLDER

Runs what has not been run yet, in one artifact root; experiments that read published files take
them from FOLDER.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from results import GAINS, leaf, markdown

from pipelines.crossed import crossed
from pipelines.request import RunRequest


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="+", type=Path)
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    parser.add_argument("--data", help="folder of the published files")
    words = parser.parse_args()
    runners = {}
    for config in words.config:
        published = words.data and config.read_text().find("\ndata:") >= 0
        request = RunRequest(
            config=str(config),
            root=str(words.root),
            overrides=(f"data.path={words.data}",) if published else (),
        )
        runner = request.open()
        runners[runner.experiment.experiment] = runner
    print(table(crossed(runners)))


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """One line a decoder, data set, split and view; nats a token, 95 % intervals over controls."""
    head = ["trained on", "tested on", "split", "view", "n", "right", *GAINS]
    lines = [
        [
            trained,
            tested,
            split,
            view,
            str(case["grounded_gain"]["n"]),
            leaf(case["answer_loss"]["right"]),
            *(leaf(case[name]) for name in GAINS),
        ]
        for (trained, tested), tree in sorted(found.items(), key=lambda one: one[0][::-1])
        for split, views in tree.items()
        for view, case in views.items()
    ]
    return markdown([name.replace("_", " ") for name in head], lines)


if __name__ == "__main__":
    main()
