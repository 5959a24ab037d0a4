"""A step table of the real shape whose steps write a few small files, and say so in a log."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipelines.running.runner
from core.errors import DamagedError
from evaluators.measure.result_files import LOSSES, LOSSES_FILE, write_table
from pipelines.artifacts.records import StepResult
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.running.runner import Runner
from pipelines.steps.shared.step import ExternalInputs, Step, StepCall

if TYPE_CHECKING:
    import pytest

INPUTS = {
    "conversations": (),
    "questions": ("conversations",),
    "dump": ("conversations",),
    "train": ("conversations", "questions", "dump"),
    "evaluate": ("conversations", "questions", "dump", "train"),
    "report": ("conversations", "questions", "dump", "train", "evaluate"),
}
PICTURE = bytes.fromhex("89504e470d0a1a0a")
"""The signature of a PNG file, which is all that is looked at here."""
LEAF = {"estimate": 1.0, "low": 0.5, "high": 1.5, "n": 9}
READING = {
    "test": {
        "control": {
            "answer_loss": {"right": LEAF, "other": LEAF},
            "untrained": {"right": LEAF, "other": LEAF},
            "grounded_gain": LEAF,
            "information_gain": LEAF,
            "below_untrained": LEAF,
            "best_uninformed": "other",
            "excluded": {},
        }
    }
}
COUNTS: dict[str, dict[str, Any]] = {
    "conversations": {"controls": 3, "examples": 5, "dropped": {"empty": 1}},
    "questions": {"questions": 7, "dropped": {"empty": 2, "orphan": 1}},
    "dump": {
        "sequences": 5,
        "tokens": 50,
        "bytes": 100,
        "tokens_per_second": 2.0,
        "forward_tokens": 50,
    },
    "train": {"steps": 2, "rows": 3, "questions": 7, "questions_per_second": 1.0, "loss": 2.5},
    "evaluate": {"reading": READING},
    "report": {"page": "report.html"},
}


class FakeSteps:
    """The table, and what its steps did.

    Args:
        log: a line `step piece` is added for each piece that is written.
        pieces: files that each step writes.
        delay: seconds that a piece takes.
        before_piece: called with step and piece before it is written.
    """

    def __init__(
        self,
        log: Path,
        *,
        pieces: int = 2,
        delay: float = 0.0,
        before_piece: Callable[[str, int], None] = lambda step, piece: None,
        digits: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        self.pieces = pieces
        self.delay = delay
        self.before_piece = before_piece
        self.digits = digits or {}
        """Step to text that changes its bytes and not its identity."""
        self.counts = dict(COUNTS)

    def table(self) -> tuple[Step, ...]:
        configs: dict[str, Callable[[Experiment], dict[str, Any]]] = {
            "conversations": lambda e: {"limit": e.data.limit if e.data else None},
            "dump": lambda e: {"layers": list(e.dump.layers)},
            "train": lambda e: {"rank": e.train.lora.rank, "seed": e.train.seed},
            "evaluate": lambda e: {"answers": e.evaluate.answers},
        }
        return tuple(
            Step(
                name=name,
                version=1,
                entry="core.documents.canonical",
                run=partial(self.make, name),
                config=configs.get(name, lambda e: {}),
                inputs={role: role for role in inputs},
                external=partial(_external, name),
                resumes_output=True,
                listed=name != "report",
            )
            for name, inputs in INPUTS.items()
        )

    def make(self, name: str, call: StepCall) -> StepResult:
        for role in call.inputs:
            for path in sorted(call.data(role).glob("piece-*")):
                check(path)
        for i in range(self.pieces):
            path = call.out / f"piece-{i}"
            if path.exists() and is_good(path):
                continue
            self.before_piece(name, i)
            time.sleep(self.delay)
            body = f"{name} {i} {self.digits.get(name, '')}"
            text = json.dumps({"body": body, "sum": _sha256(body)})
            path.write_text(text[: len(text) // 2])
            path.write_text(text)
            with open(self.log, "a") as log:
                log.write(f"{name} {i}\n")
            call.progress(i + 1, self.pieces, "pieces")
        if call.pool.workers > 1 and name == "dump":
            places = {f"pooled {i}": call.out / f"pooled-{i}" for i in range(2)}
            while left := {name: path for name, path in places.items() if not path.exists()}:
                kill = f"{self.log}.kills"
                calls = [{"path": str(path), "kill": kill} for path in left.values()]
                list(call.pool.run(write_process, calls, list(left)))
        if name == "evaluate":
            write_table(call.out / LOSSES_FILE, _losses(call.experiment), LOSSES)
        if name == "report":
            (call.out / "report.html").write_text("<p>report</p>")
            (call.out / "reading.png").write_bytes(PICTURE)
        return StepResult(counts=self.counts[name])

    def written(self) -> list[str]:
        """Return the lines of the log, and empty it."""
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


def write_process(path: str, kill: str) -> None:
    """Write a file with the number of the process; kill that first where `kill` is a file."""
    if os.path.exists(kill):
        os.unlink(kill)
        time.sleep(3)  # until a server knows of it
        os.kill(os.getpid(), signal.SIGKILL)
    Path(path).write_text(str(os.getpid()))


def _losses(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Yield losses of three controls, which fall with the rank."""
    texts = dict.fromkeys(("kind", "category", "type"), "persona")
    for control in range(3):
        costs = {"right": 0.0, "other": 0.5, "untrained_right": 0.5, "untrained_other": 0.5}
        for condition, more in costs.items():
            yield {
                **texts,
                "split": "test",
                "view": "control",
                "control_id": f"c{control}",
                "example_id": f"e{control}",
                "question": "Who?",
                "condition": condition,
                "loss": 1.0 + control / 10 + 4 / experiment.train.lora.rank + more,
                "control_effect": None,
            }


def _external(name: str, outside: ExternalInputs) -> dict[str, Any]:
    return {"file": _sha256(name)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_good(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
        return bool(_sha256(value["body"]) == value["sum"])
    except (ValueError, KeyError):
        return False


def check(path: Path) -> None:
    if not is_good(path):
        raise DamagedError(f"{path}: the checksum differs.", path)


def experiment(**changes: Any) -> Experiment:
    """Build an experiment; `changes` are whole sections."""
    return Experiment.model_validate({"experiment": "fake", "data": {"path": "."}, **changes})


def runner(root: Path, steps: FakeSteps, until: str | None = None, **changes: Any) -> Runner:
    return Runner(
        experiment(**changes),
        ArtifactRoot(root),
        until=until,
        steps=steps.table(),
        command="latentqa run fake.yaml",
    )


def use_fake_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    """Have every experiment run fake steps of one piece; `fake.yaml` in `folder` is one."""
    for name in ("PREFECT_API_URL", "LATENTQA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    steps = FakeSteps(folder / "log", pieces=1)
    monkeypatch.setattr(pipelines.running.runner, "steps_for", lambda experiment: steps.table())
    (folder / "fake.yaml").write_text("experiment: fake\ndata: {path: .}\n")
    return steps


def main() -> None:
    """Run the table in a process of its own: ROOT LOG PIECES DELAY CHANGES, these in JSON."""
    root, log, pieces, delay, changes = sys.argv[1:]
    steps = FakeSteps(Path(log), pieces=int(pieces), delay=float(delay))
    runner(Path(root), steps, **json.loads(changes)).run()


if __name__ == "__main__":
    main()
