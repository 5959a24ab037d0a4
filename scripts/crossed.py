"""Decoders of several experiments, each tested on the rows of all of them, as Markdown.

python scripts/crossed.py experiments/quickstart.yaml experiments/published_equal.yaml --data FOLDER

Runs what has not been run yet, in one artifact root; experiments that read published files take
them from FOLDER.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipelines.crossed import crossed, crossed_table
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
    print(crossed_table(crossed(runners)))


if __name__ == "__main__":
    main()
