"""`latentqa results`: the numbers of an evaluated run as Markdown tables."""

from __future__ import annotations

import json
from typing import Any

from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import report


def results(ref: RefArgument, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Print losses and gains of each split and view, robustness, tasks and control, as Markdown.

    Intervals are 95 % bootstrap intervals over controls.
    """
    from evaluators.control.metrics import ControlMetrics
    from evaluators.measure.metrics import RobustnessMetrics
    from evaluators.measure.result_files import METRICS_FILE, ROBUSTNESS_FILE
    from evaluators.tasks.metrics import TasksMetrics
    from pipelines.artifacts.refs import Refs
    from pipelines.artifacts.root import ArtifactRoot
    from pipelines.reports.run.control import control_tables
    from pipelines.reports.run.robustness import robustness_tables
    from pipelines.reports.run.tables import reading_tables
    from pipelines.reports.run.tasks import task_tables

    refs = Refs(ArtifactRoot(root.expanduser()))
    found = refs.resolve_set(ref)
    robust, tasks = found.get("robustness"), found.get("tasks")
    tables: list[str] = []
    document: dict[str, Any] = {}
    if tasks is None or "evaluate" in found:
        evaluated = refs.resolve(ref, "evaluate")
        document["reading"] = json.loads((evaluated.data / METRICS_FILE).read_text())["reading"]
        tables.append(reading_tables(document["reading"]))
    if robust is not None:
        document["robustness"] = json.loads((robust.data / ROBUSTNESS_FILE).read_text())
        tables.append(robustness_tables(RobustnessMetrics.from_json(document["robustness"])))
    if tasks is not None:
        document["tasks"] = tasks.record["counts"]["tasks"]
        tables.append(task_tables(TasksMetrics.from_json({"tasks": document["tasks"]})))
    if (control := found.get("control")) is not None:
        document["control"] = control.record["counts"]
        tables.append(control_tables(ControlMetrics.model_validate(document["control"])))
    report(as_json, document, "\n\n".join(tables))
