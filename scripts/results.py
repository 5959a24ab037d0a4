"""The panel of a run as Markdown: losses by condition, then gains, for each split and view.

python scripts/results.py latentqa_eval [--root ROOT]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from evaluators.tables import METRICS_FILE
from pipelines.artifacts import ArtifactRoot
from pipelines.reading_tables import reading_tables
from pipelines.refs import Refs


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ref")
    default = Path(os.environ.get("LATENTQA_ROOT", "artifacts"))
    parser.add_argument("--root", type=Path, default=default)
    words = parser.parse_args()
    found = Refs(ArtifactRoot(words.root)).resolve(words.ref, "evaluate")
    measured = json.loads((found.data / METRICS_FILE).read_text())
    if strange := measured.get("foreign_target"):
        print(f"Foreign target: {', '.join(strange['differs'])} not the decoder's own.\n")
    print(reading_tables(measured["reading"]))


if __name__ == "__main__":
    main()
