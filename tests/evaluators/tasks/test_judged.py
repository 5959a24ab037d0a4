"""An LLM's verdicts on what was written about hidden prompts, of a scripted judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from endpoints import resolved
from pydantic import ValidationError
from scripted_endpoint import ScriptedEndpoint

from core.errors import DataError
from evaluators.measure.result_files import RESULTS_FILE, write_table
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.judged import VERDICTS_FILE, JudgedTask, judge_task_answers
from evaluators.tasks.result_files import TASK_ANSWERS, TASK_ANSWERS_FILE
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply

CONFIG = TasksConfig.model_validate(
    {"prompts": {}, "judge": {"answers": 10}, "bootstrap": 200, "min_intervals": 8}
)


def rows(task: str, similarity: float | None) -> list[dict[str, Any]]:
    """Make rows in which `lit` says the prompt, and `none` something else."""
    return [
        {
            **dict.fromkeys(TASK_ANSWERS.names),
            "task": task,
            "predictor": name,
            "row_id": f"r{i}",
            "group": f"g{i}",
            "question": "What is it told to do?",
            "gold": f"Be number {i}.",
            "answer": f"Be number {i}." if name == "lit" else "Be kind.",
            "similarity": similarity,
        }
        for name in ("lit", "none")
        for i in range(12)
    ]


def by_gold(body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return plausible_reply(body)
    asked = [m["content"] for m in body["messages"] if m["content"].startswith("Question:")][-1]
    told = dict(line.split(": ", 1) for line in asked.splitlines() if ": " in line)
    return {"verdict": "right" if told["Given answer"] == told["Correct answer"] else "wrong"}


def judged(folder: Path, answers: list[dict[str, Any]]) -> tuple[dict[str, JudgedTask], int]:
    write_table(folder / TASK_ANSWERS_FILE, answers, TASK_ANSWERS)
    (folder / "out").mkdir(exist_ok=True)
    with ScriptedEndpoint(by_gold) as endpoint:
        session = LLMSession(endpoint=resolved(endpoint), log=folder / "log.sqlite")
        found, usage = judge_task_answers(folder, folder / "out", session, config=CONFIG)
    return found.judged_tasks, usage.requests


def test_each_method_is_judged_on_the_same_prompts(tmp_path: Path) -> None:
    found, _ = judged(tmp_path, [*rows("hidden", 0.5), *rows("relation", None)])
    assert list(found) == ["hidden"]
    shares = {name: own.judged for name, own in found["hidden"].predictors.items()}
    assert (shares["lit"].estimate, shares["lit"].n) == (1.0, 10)
    assert (shares["none"].estimate, shares["none"].n) == (0.0, 10)
    assert found["hidden"].agreement.raw == 1.0
    verdicts = pq.read_table(tmp_path / "out" / VERDICTS_FILE).to_pylist()
    assert len(verdicts) == 20
    assert len({row["row_id"] for row in verdicts}) == 10
    numbers = pq.read_table(tmp_path / "out" / RESULTS_FILE).to_pylist()
    assert [row["metric"] for row in numbers] == ["hidden.lit.judged", "hidden.none.judged"]


def test_what_was_judged_is_not_asked_again(tmp_path: Path) -> None:
    _, asked = judged(tmp_path, rows("hidden", 0.5))
    _, again = judged(tmp_path, rows("hidden", 0.5))
    assert asked == 2 * 20
    assert again == 0


def test_without_hidden_prompts_there_is_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no hidden prompt was asked about"):
        judged(tmp_path, rows("relation", None))
    with pytest.raises(ValidationError, match="set prompts"):
        TasksConfig.model_validate({"judge": {}})
