"""The command line over the fake step table, in a process of its own.

python fake_cli.py LOG PIECES DELAY WORD...

Where the file LOG.fails holds a number, the endpoint of the step `questions` fails as often; where
there is a file LOG.progress, progress is shown at once.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from fake_steps import FakeSteps

from core.errors import EndpointError
from latentqa.cli import main
from pipelines.running import runner as runner_module

if __name__ == "__main__":
    log, pieces, delay, *words = sys.argv[1:]
    failures = Path(f"{log}.fails")

    def ask_endpoint(step: str, piece: int) -> None:
        left = int(failures.read_text()) if failures.exists() else 0
        if step == "questions" and left:
            failures.write_text(str(left - 1))
            raise EndpointError("endpoint: cannot be reached.", transient=True)

    steps = FakeSteps(Path(log), pieces=int(pieces), delay=float(delay), before_piece=ask_endpoint)
    if failures.exists():
        step_tasks = importlib.import_module("pipelines.orchestration.step_tasks")
        setattr(step_tasks, "BACKOFF_S", 0.1)  # noqa: B010
    if Path(f"{log}.progress").exists():
        artifacts = importlib.import_module("pipelines.orchestration.artifacts")
        setattr(artifacts, "PROGRESS_EVERY_S", 0.0)  # noqa: B010
    setattr(runner_module, "steps_for", lambda experiment: steps.table())  # noqa: B010
    main(words)
