"""The report of an experiment: one self-contained HTML page, with its figures beside it.

The page depends on its inputs alone: no clock, no random ids, and the seconds shown are those of
the run that computed each artifact, so that a rerun of hits writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.files import write_bytes
from core.text.redact import redact
from core.text.wording import count, number, size, sort_known
from evaluators.breakdowns import LEAST_ASKED
from evaluators.control.metrics import ControlMetrics
from evaluators.measure.result_files import LOSSES_FILE
from evaluators.tasks.metrics import TasksMetrics
from evaluators.tasks.result_files import TASK_ANSWERS_FILE
from generators.quality.tables import (
    answerability_table,
    effect_table,
    obedience_table,
    verdict_table,
)
from pipelines.artifacts.artifact import Artifact
from pipelines.reports.pages.render import render_page
from pipelines.reports.plots.page_figure import PageFigure, write_figures
from pipelines.reports.run.claims import assess_reading, headline
from pipelines.reports.run.data import ReportData, read_report_data
from pipelines.reports.run.evaluation import (
    CONDITIONS,
    read_control,
    read_control_judged,
    read_robustness,
    read_tasks,
)
from pipelines.reports.run.figures import loss_panel, report_figures
from pipelines.reports.run.inputs import ReportInputs, artifact_file, printed_config
from pipelines.reports.run.sections.control import control_page
from pipelines.reports.run.sections.control_figures import control_figures
from pipelines.reports.run.sections.drops import dropped_by_step
from pipelines.reports.run.sections.groups import GroupTable, group_tables, measure_groups
from pipelines.reports.run.sections.header import header_facts
from pipelines.reports.run.sections.quality import read_quality
from pipelines.reports.run.sections.robustness import change_table, held_out_table
from pipelines.reports.run.sections.task_figures import task_figures
from pipelines.reports.run.sections.tasks import read_examples, task_page
from pipelines.reports.run.tables import (
    gain_table,
    generic_table,
    identification_table,
    loss_table,
)


def write_report(inputs: ReportInputs, out: Path) -> Path:
    """Write the report of a run.

    Args:
        inputs: the experiment, its config, metrics and artifacts.
        out: folder for `report.html`, `reading.png` (the loss panel) and `figures/`, which holds
            each figure as SVG and PNG, with its data as CSV.

    Returns:
        The path of `report.html`.

    Raises:
        DamagedError: a file of an artifact cannot be read.
        DataError: a data table is not such a table.
        StorageError: the disk is full or read-only.
    """
    data = read_report_data(inputs)
    tasks = read_tasks(inputs)
    control = read_control(inputs)
    figures = report_figures(data) | ({} if tasks is None else task_figures(tasks))
    figures |= {} if control is None else control_figures(control)
    write_figures(figures.values(), out)
    image = loss_panel(data)
    if image is not None:
        write_bytes(out / "reading.png", image)
    page = out / "report.html"
    write_bytes(page, _page(inputs, data, figures, tasks, control).encode())
    return page


def _page(
    inputs: ReportInputs,
    data: ReportData,
    figures: Mapping[str, PageFigure],
    tasks: TasksMetrics | None,
    control: ControlMetrics | None,
) -> str:
    experiment = inputs.experiment
    claims = [assess_reading(reading) for reading in data.readings]
    task_results = None if tasks is None else task_page(tasks)
    steering = None if control is None else control_page(control, read_control_judged(inputs))
    least = experiment.evaluate.min_controls
    robustness = read_robustness(inputs)
    return render_page(
        "run/report.html",
        experiment=experiment.experiment,
        command=redact(inputs.command),
        config=yaml.safe_dump(
            printed_config(experiment), sort_keys=False, allow_unicode=True, width=96
        ),
        header=header_facts(inputs, data.data.rows if data.data else ()),
        data=data,
        groups=_groups(inputs),
        losses=loss_table(data.readings),
        gains=gain_table(data.readings),
        identified=identification_table(data.readings),
        generic=generic_table(data.readings),
        least_asked=LEAST_ASKED,
        quality=read_quality(inputs),
        answerability_table=answerability_table,
        verdict_table=verdict_table,
        effect_table=effect_table,
        obedience_table=obedience_table,
        robustness=robustness,
        changes=None if robustness is None else change_table(robustness),
        held_out=None if robustness is None else held_out_table(robustness),
        in_short=[
            (what, *one)
            for what, page in (("reading task", task_results), ("steering", steering))
            for one in (page.in_short if page else ())
        ],
        tasks=task_results,
        task_examples=read_examples(artifact_file(inputs.step("tasks"), TASK_ANSWERS_FILE)),
        control=steering,
        least=least,
        hidden=any(reading.metrics.hidden_gain for reading in data.readings),
        figures=figures,
        headline=(steering and steering.headline) or headline(data.readings, claims, least=least),
        claims=claims,
        dropped=dropped_by_step(inputs.steps, data.drops),
        splits=[
            (split, [reading for reading in data.readings if reading.split == split])
            for split in dict.fromkeys(reading.split for reading in data.readings)
        ],
        conditions=sort_known((c for r in data.readings for c in r.losses), CONDITIONS),
        glance=_glance(data),
        store=_store_facts(data.dump),
        canary=data.dump.get("canary"),
        training=_training_facts(data.train),
        steps=[_step_row(step) for step in inputs.steps],
        environment=_environment(inputs.steps),
    )


def _groups(inputs: ReportInputs) -> list[GroupTable]:
    """Measure the groups of the run's evaluation; none where it did not run."""
    losses = artifact_file(inputs.step("evaluate"), LOSSES_FILE)
    if losses is None:
        return []
    return group_tables(measure_groups(losses.parent, inputs.experiment.evaluate))


def _glance(data: ReportData) -> list[tuple[str, str]]:
    """Return the size of the run in a few numbers, as (number, what it counts)."""
    found = [
        (data.data.controls if data.data else None, "controls"),
        (len(data.data.rows) if data.data else None, "examples"),
        (data.data.questions if data.data else None, "questions"),
        (data.dump.get("tokens"), "tokens stored"),
        (data.train.get("steps"), "optimiser steps"),
    ]
    return [(count(value), what) for value, what in found if value is not None]


def _store_facts(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return _facts(
        counts,
        ("sequences", "sequences", count),
        ("tokens", "tokens", count),
        ("size", "bytes", size),
        ("tokens per second", "tokens_per_second", count),
        ("blocks read", "layers", lambda layers: ", ".join(map(str, layers))),
        ("width", "d_model", count),
        ("computed in", "compute_dtype", str),
        ("stored in", "store_dtype", str),
    )


def _training_facts(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return _facts(
        counts,
        ("optimiser steps", "steps", count),
        ("checkpoint kept", "best_step", lambda step: f"step {step}"),
        ("questions seen", "questions", count),
        ("questions per second", "questions_per_second", lambda rate: f"{rate:.1f}"),
        ("trainable parameters", "trainable_parameters", count),
        ("training loss at the end", "loss", number),
        ("validation right, untrained", "untrained_validation", number),
        ("validation right, kept", "validation", number),
    )


def _facts(
    counts: Mapping[str, Any], *rows: tuple[str, str, Callable[[Any], str]]
) -> list[tuple[str, str]]:
    """Return name and text of each (name, key, format) whose key is among the counts."""
    return [(name, word(counts[key])) for name, key, word in rows if counts.get(key) is not None]


def _step_row(step: Artifact) -> dict[str, Any]:
    return {
        "step": step.kind,
        "key": step.key[:16],
        "output": step.output[:16],
        "created": step.record["created"][:16].replace("T", " "),
        "seconds": step.record["seconds"],
    }


def _environment(steps: Sequence[Artifact]) -> list[tuple[str, str]]:
    """Machine, device, commit and package versions, each from the last step that recorded it."""
    found: dict[str, str] = {}
    for record in (step.record for step in steps):
        found["machine"] = "{system} {processor}, {cores} cores, Python {python}".format(
            **record["machine"]
        )
        found["device"] = record["runtime"]["device"]
        if git := record["git"]:
            dirty = ", with uncommitted changes" if git["dirty"] else ""
            found["commit"] = f"{git['commit'][:12]}{dirty}"
        found |= record["packages"]
    return list(found.items())
