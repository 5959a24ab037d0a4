"""The command line over the fake step table, in a process of its own.

python fake_cli.py LOG PIECES DELAY WORD...
"""

from __future__ import annotations

import sys
from pathlib import Path

from fake_steps import FakeSteps

import pipelines.running.runner
from latentqa.cli import main

if __name__ == "__main__":
    log, pieces, delay, *words = sys.argv[1:]
    steps = FakeSteps(Path(log), pieces=int(pieces), delay=float(delay))
    pipelines.running.runner.steps_for = lambda experiment: steps.table()
    main(words)
