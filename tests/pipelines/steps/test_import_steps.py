"""What decides an import of the user's own conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_steps import experiment

from pipelines.steps.order import steps_for
from pipelines.steps.shared.step import ExternalInputs

ROW = {
    "messages": [{"role": "user", "content": "Be a pirate.", "segment": "control"}],
    "questions": [{"question": "Who is it?", "answer": "A pirate."}],
}


def external(path: Path) -> dict[str, Any]:
    """Return what the two tables take from the files at `path`, by step."""
    own = experiment(data={"path": str(path), "format": "conversations"})
    steps = {step.name: step for step in steps_for(own)}
    outside = ExternalInputs(own)
    return {name: steps[name].external(outside) for name in ("conversations", "questions")}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_same_bytes_under_another_file_name_are_a_hit(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a" / "x.jsonl", ROW), write(tmp_path / "b" / "y.jsonl", ROW)
    assert external(one) == external(other)
    assert external(one.parent) == external(other.parent)


@pytest.mark.parametrize("field", ["messages", "questions"])
def test_other_bytes_are_a_miss(tmp_path: Path, field: str) -> None:
    changed = json.loads(json.dumps(ROW).replace("pirate", "parrot"))
    one = write(tmp_path / "a.jsonl", ROW)
    other = write(tmp_path / "b.jsonl", {**ROW, field: changed[field]})
    step = "conversations" if field == "messages" else "questions"
    assert external(one)[step] != external(other)[step]
