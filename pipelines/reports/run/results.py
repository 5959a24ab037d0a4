"""The numbers of an evaluated run: one JSON document, and the same as Markdown tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.text.text_tables import align_columns
from evaluators.config import EvaluateConfig
from evaluators.control.metrics import ControlMetrics
from evaluators.measure.metrics import RobustnessMetrics
from evaluators.measure.result_files import ROBUSTNESS_FILE
from evaluators.tasks.metrics import TasksMetrics, with_verdicts
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Refs
from pipelines.reports.run.sections.control import control_tables
from pipelines.reports.run.sections.groups import groups_json, markdown_groups, measure_groups
from pipelines.reports.run.sections.robustness import robustness_tables
from pipelines.reports.run.sections.tasks import task_tables
from pipelines.reports.run.tables import reading_tables


@dataclass(frozen=True, slots=True)
class Results:
    """What a run measured.

    Attributes:
        document: `reading`, `groups`, `robustness`, `tasks` and `control`, each where it is there.
        text: the same as Markdown tables.
    """

    document: dict[str, Any]
    text: str


def read_results(refs: Refs, ref: str) -> Results:
    """Read the results of the run, or of the evaluation, that `ref` names.

    Raises:
        RefError: it names nothing, or nothing that was evaluated.
        DamagedError: a file of the evaluation cannot be read.
    """
    found = refs.resolve_set(ref)
    robust, tasks = found.get("robustness"), found.get("tasks")
    tables: list[str] = []
    document: dict[str, Any] = {}
    if tasks is None or "evaluate" in found:
        evaluated = refs.resolve(ref, "evaluate")
        document["reading"] = evaluated.record["counts"]["reading"]
        tables.append(reading_tables(document["reading"]))
        groups = measure_groups(evaluated.checked().data, _config(evaluated))
        document["groups"] = groups_json(groups)
        tables.append(markdown_groups(groups))
    if robust is not None:
        document["robustness"] = json.loads((robust.checked().data / ROBUSTNESS_FILE).read_text())
        tables.append(robustness_tables(RobustnessMetrics.model_validate(document["robustness"])))
    if tasks is not None:
        judge = found.get("judge_tasks")
        judged = {} if judge is None else judge.record["counts"]["judged_tasks"]
        document["tasks"] = with_verdicts(tasks.record["counts"]["tasks"], judged)
        tables.append(task_tables(TasksMetrics.model_validate({"tasks": document["tasks"]})))
    if (control := found.get("control")) is not None:
        document["control"] = control.record["counts"]
        tables.append(control_tables(ControlMetrics.model_validate(document["control"])))
    return Results(document, align_columns("\n\n".join(table for table in tables if table)))


def _config(evaluated: Artifact) -> EvaluateConfig:
    """Return the statistical settings that an evaluation was made with."""
    made_with = evaluated.identity["config"]
    names = ("bootstrap", "min_controls", "seed")
    return EvaluateConfig(**{name: made_with[name] for name in names if name in made_with})
