"""The panel of a run as Markdown: losses by condition, then gains, for each split and view; and
what changes cost its decoder, where the run measured it.

python scripts/results.py latentqa_eval [--root ROOT]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from evaluators.measure.result_files import METRICS_FILE, ROBUSTNESS_FILE
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.run.robustness_tables import robustness_tables
from pipelines.reports.run.tables import reading_tables


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ref")
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    words = parser.parse_args()
    refs = Refs(ArtifactRoot(words.root))
    found = refs.resolve(words.ref, "evaluate")
    print(reading_tables(json.loads((found.data / METRICS_FILE).read_text())["reading"]))
    robust = refs.resolve_set(words.ref).get("robustness")
    if robust is not None:
        changes = json.loads((robust.data / ROBUSTNESS_FILE).read_text())
        print(f"\n{robustness_tables(changes)}")


if __name__ == "__main__":
    main()
