"""Decoders of several experiments, each tested on the rows of all of them, as Markdown.

python scripts/crossed.py experiments/quickstart.yaml experiments/published_equal.yaml --data FOLDER
python scripts/crossed.py base.yaml tuned.yaml --foreign-target

Runs what has not been run yet, in one artifact root; experiments that read published files take
them from FOLDER. With --foreign-target their targets may differ, as a model and its fine-tune do,
and what a decoder made of another target's activations is called so.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from core.errors import ConfigError, UserError
from pipelines.running.crossed import crossed, crossed_table
from pipelines.running.request import RunRequest
from pipelines.running.runner import Runner


def main(argv: list[str]) -> int:
    """Print the table, and where each page is; 2 on a user's error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="+", type=Path)
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    parser.add_argument("--data", help="folder of the published files")
    parser.add_argument(
        "--foreign-target",
        action="store_true",
        help="let the experiments have different targets of one shape; every result says so",
    )
    words = parser.parse_args(argv)
    try:
        runners: dict[str, Runner] = {}
        for config in words.config:
            published = words.data and config.is_file() and "\ndata:" in config.read_text()
            request = RunRequest(
                config=str(config),
                root=str(words.root),
                overrides=(f"data.path={words.data}",) if published else (),
            )
            runner = request.open()
            name = runner.experiment.experiment
            if name in runners:
                raise ConfigError(f"{config}: an experiment {name} was named before it.")
            runners[name] = runner
        command = shlex.join(["python", "scripts/crossed.py", *argv])
        found = crossed(runners, foreign=words.foreign_target, command=command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(crossed_table(found))
    print()
    for one in found.values():
        print(f"{one.name}: {one.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
