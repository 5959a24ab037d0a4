"""Record that the source files of a step have changed, and whether its output has.

    python scripts/record_source_digests.py                  versions were raised where needed
    python scripts/record_source_digests.py --same-output    the changes leave every output as it is

Writes tests/pipelines/steps/source_digests.json. Without --same-output it refuses a step whose
files have changed and whose version has not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# the checkout that this file lies in, whichever one is installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.steps.order import every_step
from pipelines.steps.source_digest import source_digest

DATA = Path(__file__).resolve().parents[1] / "tests" / "pipelines" / "steps" / "source_digests.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Record source digests of all steps.")
    parser.add_argument(
        "--same-output", action="store_true", help="the changed files leave every output as it is"
    )
    same_output = parser.parse_args().same_output
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    found = {
        f"{step.name} by {step.entry}": {
            "version": step.version,
            "digest": source_digest(step.entry),
        }
        for step in every_step()
    }
    changed = [step for step, value in found.items() if value != known.get(step)]
    silent = [
        step
        for step in changed
        if step in known and found[step]["version"] == known[step]["version"]
    ]
    if silent and not same_output:
        sys.exit(
            f"{', '.join(silent)}: the source files have changed and the version has not. Raise it "
            "in pipelines/steps/order.py, or pass --same-output."
        )
    DATA.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    print(f"recorded: {', '.join(changed) or 'nothing had changed'}")


if __name__ == "__main__":
    main()
