"""Judged similarity: an LLM tells whether what was written says the same as the hidden prompt.

It sees the question, the hidden prompt and an answer, and not whose answer that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.documents.canonical import digest
from core.errors import DataError
from core.files import storage_errors
from core.progress import Progress, silent
from core.records.estimate import Estimate
from evaluators.answers.judge import ask_judge
from evaluators.config import RUBRIC, JudgeConfig
from evaluators.measure.metrics import Metrics
from evaluators.measure.result_files import RESULTS, RESULTS_FILE, write_table
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.measure import estimate_groups
from evaluators.tasks.result_files import TASK_ANSWERS_FILE, number_rows
from generators.llm.sending.budget import Usage
from generators.llm.session import LLMSession
from generators.quality.agreement import Agreement, agreement
from generators.quality.judge import ItemVerdicts, rubric_named

VERDICTS_FILE = "task_verdicts.parquet"
_RIGHT = "right"
"""The verdict that counts."""
_TOLD = ("task", "predictor", "row_id", "gold", "answer")
VERDICTS = pa.schema([(name, pa.string()) for name in (*_TOLD, "first", "second")])
"""One row an answer: what stood in both, and the verdicts of both passes."""


class JudgedMethod(Metrics):
    """The judge's verdicts on one method.

    Attributes:
        judged: share of answers that say the same as the hidden prompt.
    """

    judged: Estimate


class JudgedTask(Metrics):
    """The judge's verdicts on one task.

    Attributes:
        predictors: by name.
        agreement: of the judge with itself.
        unread: answers without a readable verdict, which are left out.
    """

    predictors: dict[str, JudgedMethod]
    agreement: Agreement
    unread: int


class JudgedTasks(Metrics):
    """A judge's verdicts on all tasks with hidden prompts, by task."""

    judged_tasks: dict[str, JudgedTask]


def judge_task_answers(
    tasks: Path,
    out: Path,
    session: LLMSession,
    *,
    config: TasksConfig,
    progress: Progress = silent,
) -> tuple[JudgedTasks, Usage]:
    """Judge what each method wrote about hidden prompts, by the rubric `judge_reading`.

    Args:
        tasks: folder that the step `tasks` wrote.
        out: receives every verdict and every number as Parquet.
        session: how the judge is reached.
        config: settings of the tasks, their judge among them.
        progress: receives finished verdicts.

    Raises:
        DataError: no task has hidden prompts.
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: the rubric's file is wrong.
    """
    rows = _draw(pq.read_table(tasks / TASK_ANSWERS_FILE).to_pylist(), config)
    if not rows:
        raise DataError(
            "tasks.judge: no hidden prompt was asked about, so nothing can be judged; expected "
            "tasks.prompts, and enough controls. Set tasks.judge to null, or tasks.prompts."
        )
    items = [
        {"question": row["question"], "gold": row["gold"], "answer": row["answer"] or "(nothing)"}
        for row in rows
    ]
    rubric = rubric_named(session.texts, RUBRIC)
    (found,), usage = ask_judge(session, [(rubric, items)], progress)
    judged = list(zip(rows, found.items, strict=True))
    metrics = JudgedTasks(
        judged_tasks={
            task: _measure([pair for pair in judged if pair[0]["task"] == task], config)
            for task in dict.fromkeys(row["task"] for row in rows)
        }
    )
    with storage_errors(out):
        verdicts = [
            {**{name: row[name] for name in _TOLD}, "first": own[0], "second": own[1]}
            for row, own in ((row, item.verdicts) for row, item in judged)
        ]
        write_table(out / VERDICTS_FILE, verdicts, VERDICTS)
        named = {
            f"{task}.{name}": own
            for task, of_task in metrics.judged_tasks.items()
            for name, own in of_task.predictors.items()
        }
        numbers = number_rows(named, min_intervals=config.min_intervals)
        write_table(out / RESULTS_FILE, numbers, RESULTS)
    return metrics, usage


def _draw(answers: Sequence[Mapping[str, Any]], config: TasksConfig) -> list[Mapping[str, Any]]:
    """Draw the hidden prompts of each task whose answers are judged, the same for all methods."""
    most = (config.judge or JudgeConfig()).answers
    hidden = [row for row in answers if row["similarity"] is not None]
    kept: set[tuple[str, str]] = set()
    for task in dict.fromkeys(row["task"] for row in hidden):
        own = {row["row_id"] for row in hidden if row["task"] == task}
        drawn = sorted(own, key=lambda row_id: digest([config.seed, row_id]))[:most]
        kept |= {(task, row_id) for row_id in drawn}
    return [row for row in hidden if (row["task"], row["row_id"]) in kept]


def _measure(
    judged: Sequence[tuple[Mapping[str, Any], ItemVerdicts]], config: TasksConfig
) -> JudgedTask:
    readable = [(row, item.verdict) for row, item in judged if item.verdict is not None]
    predictors = {}
    for name in dict.fromkeys(row["predictor"] for row, _ in readable):
        own = [(row, verdict) for row, verdict in readable if row["predictor"] == name]
        share = estimate_groups(
            [float(verdict == _RIGHT) for _, verdict in own],
            [row["group"] for row, _ in own],
            config,
        )
        predictors[name] = JudgedMethod(judged=share)
    first, second = zip(*(item.verdicts for _, item in judged), strict=True)
    return JudgedTask(
        predictors=predictors,
        agreement=agreement(first, second),
        unread=len(judged) - len(readable),
    )
