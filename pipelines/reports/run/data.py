"""Data of a report, read from the artifacts of a run.

A step that did not run, or a file that a step had no reason to write, is `None` or empty here:
the page says so in words. All losses and gains are nats per token; n counts controls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from core.records.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
)
from core.records.tables import SPLITS, VIEWS, Conversation
from core.records.tool_use import message_text
from core.text.wording import sort_known, sort_pairs
from evaluators.measure.result_files import read_rows
from pipelines.artifacts.artifact import Artifact
from pipelines.reports.run.evaluation import ReadingResult, read_readings
from pipelines.reports.run.inputs import ReportInputs, artifact_file, json_object
from pipelines.reports.run.sections.drops import Drop, read_drops


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """The training curve: loss and rate at each logged step, validation `right` at some."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    validation_steps: tuple[int, ...]
    validation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One written answer beside gold."""

    question: str
    gold: str
    right: str
    other: str
    swapped: str | None = None
    """Given the same visible text under another control; None where nothing is hidden."""


@dataclass(frozen=True, slots=True)
class AnsweredControl:
    """The answers of one example: its control, and what was asked of its activations."""

    kind: str
    category: str
    control: str
    other_controls: tuple[str, ...]
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Written answers of one split and view."""

    split: str
    view: str
    controls: tuple[AnsweredControl, ...]

    @property
    def pairs(self) -> int:
        """Questions that were answered."""
        return sum(len(control.answers) for control in self.controls)

    @property
    def same(self) -> int:
        """Questions whose answer is word for word the same with another control's activations."""
        return sum(a.right.strip() == a.other.strip() for c in self.controls for a in c.answers)


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """Two measures of one control, each the mean over its questions."""

    split: str
    view: str
    kind: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class CountTable:
    """Counts by two names, such as examples by view and split."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    totals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The two tables, counted, and an example row of each view."""

    rows: tuple[Conversation, ...]
    controls: int
    questions: int | None
    controls_by_kind: CountTable
    examples_by_view: CountTable
    samples: tuple[Conversation, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that a report is made of."""

    readings: tuple[ReadingResult, ...]
    absent_splits: tuple[str, ...]
    control_losses: tuple[ControlPoint, ...]
    """Answer loss of each control given `right` and given `other`, nats per token."""
    control_effects: tuple[ControlPoint, ...]
    """How much likelier completions are under a control than under another, in nats; and the hidden
    gain of its questions, nats per token."""
    answers: tuple[AnswerGroup, ...]
    training: TrainingLog | None
    data: DataSummary | None
    drops: tuple[Drop, ...]
    dump: Mapping[str, Any]
    """Numbers about the store; empty without one."""
    train: Mapping[str, Any]
    """Likewise about the training."""
    foreign: tuple[str, ...]
    """What differs from the decoder's own target, where the store is another's."""


def read_report_data(inputs: ReportInputs) -> ReportData:
    """Read everything that the page shows.

    Raises:
        DamagedError: a file of an artifact is there but cannot be read.
        DataError: one of the data tables is no such table.
    """
    steps = {step.kind: step for step in inputs.steps}
    readings = read_readings(inputs)
    asked = inputs.experiment.evaluate.splits if readings else ()
    found = {reading.split for reading in readings}
    return ReportData(
        readings=readings,
        absent_splits=tuple(split for split in asked if split not in found),
        control_losses=_control_losses(steps.get("evaluate")),
        control_effects=_control_effects(steps.get("evaluate")),
        answers=_answers(steps.get("evaluate")),
        training=_training(steps.get("train")),
        data=_data(inputs),
        drops=read_drops(inputs.steps),
        dump=_counts(steps.get("dump")),
        train=_counts(steps.get("train")),
        foreign=tuple((inputs.metrics.get("foreign_target") or {}).get("differs") or ()),
    )


def _counts(step: Artifact | None) -> Mapping[str, Any]:
    counts: Mapping[str, Any] = {} if step is None else step.record["counts"]
    return counts


def _training(step: Artifact | None) -> TrainingLog | None:
    path = artifact_file(step, "log.jsonl")
    if path is None:
        return None
    lines = [json_object(line, path) for line in path.read_text().splitlines() if line.strip()]
    losses = [line for line in lines if line.get("loss") is not None]
    checks = [line for line in lines if (line.get("validation") or {}).get("right") is not None]
    if not losses and not checks:
        return None
    return TrainingLog(
        steps=tuple(line["step"] for line in losses),
        losses=tuple(line["loss"] for line in losses),
        rates=tuple(line.get("learning_rate") or 0.0 for line in losses),
        validation_steps=tuple(line["step"] for line in checks),
        validation=tuple(line["validation"]["right"] for line in checks),
    )


def _answers(step: Artifact | None) -> tuple[AnswerGroup, ...]:
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for row in read_rows(artifact_file(step, "answers.parquet")):
        groups[row["split"], row["view"]].setdefault(row["example_id"], []).append(row)
    return tuple(
        AnswerGroup(split, view, tuple(_answered(rows) for rows in groups[split, view].values()))
        for split, view in sort_pairs(groups, SPLITS, VIEWS)
    )


def _answered(rows: list[dict[str, Any]]) -> AnsweredControl:
    first = rows[0]
    return AnsweredControl(
        kind=first["kind"],
        category=first["category"],
        control=first["control"],
        other_controls=tuple(
            dict.fromkeys(row["other_control"] for row in rows if row["other_control"])
        ),
        answers=tuple(
            ShownAnswer(
                row["question"],
                row["gold"],
                row["right"] or "",
                row["other"] or "",
                row.get("swapped"),
            )
            for row in rows
        ),
    )


def _control_losses(step: Artifact | None) -> tuple[ControlPoint, ...]:
    """Measure the controls that have both `right` and `other`."""
    return tuple(
        ControlPoint(split, view, kind, means["right"], means["other"])
        for (split, view, kind, _), means in _means(step, ("right", "other")).items()
    )


def _control_effects(step: Artifact | None) -> tuple[ControlPoint, ...]:
    """Measure the controls whose effect on completions was measured, and their hidden gain."""
    return tuple(
        ControlPoint(split, view, kind, means["control_effect"], means["swapped"] - means["right"])
        for (split, view, kind, _), means in _means(
            step, ("right", "swapped"), "control_effect"
        ).items()
    )


def _means(
    step: Artifact | None, conditions: tuple[str, str], column: str | None = None
) -> dict[tuple[str, str, str, str], dict[str, float]]:
    """Average over the questions of each control, for controls with both conditions.

    Args:
        step: the evaluation; None for none.
        conditions: whose losses are averaged.
        column: of the rows, averaged too; rows without it do not count.
    """
    found: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in read_rows(artifact_file(step, "losses.parquet")):
        if row["condition"] in conditions and (column is None or row.get(column) is not None):
            own = found[row["split"], row["view"], row["kind"], row["control_id"]]
            own[row["condition"]].append(row["loss"])
            if column is not None:
                own[column].append(row[column])
    return {
        key: {name: fmean(values) for name, values in own.items()}
        for key, own in found.items()
        if all(own.get(condition) for condition in conditions)
    }


def _data(inputs: ReportInputs) -> DataSummary | None:
    path = inputs.table(CONVERSATIONS_FILE)
    if path is None:
        return None
    rows = read_conversations(path)
    questions = inputs.table(QUESTIONS_FILE)
    samples: dict[str, Conversation] = {}
    for row in sorted(rows, key=lambda row: SPLITS.index(row.split)):
        samples.setdefault(row.view, _as_said(row))
    controls = {row.control_id: (row.kind, row.split) for row in rows}
    return DataSummary(
        controls=len(controls),
        rows=tuple(rows),
        questions=len(read_questions(questions)) if questions else None,
        controls_by_kind=_count_table("controls", controls.values(), ()),
        examples_by_view=_count_table("examples", ((r.view, r.split) for r in rows), VIEWS),
        samples=tuple(samples[view] for view in sort_known(samples, VIEWS)),
    )


def _as_said(row: Conversation) -> Conversation:
    """Write the calls of tools into the contents of `row`."""
    return replace(row, messages=tuple(replace(m, content=message_text(m)) for m in row.messages))


def _count_table(
    corner: str, pairs: Iterable[tuple[str, str]], order: tuple[str, ...]
) -> CountTable:
    counts = Counter(pairs)
    columns = sort_known((split for _, split in counts), SPLITS)
    rows = [
        (name, tuple(counts[name, split] for split in columns))
        for name in sort_known((name for name, _ in counts), order)
    ]
    return CountTable(
        corner=corner,
        columns=(*columns, "all"),
        rows=tuple((name, (*row, sum(row))) for name, row in rows),
        totals=(
            *(sum(row[i] for _, row in rows) for i in range(len(columns))),
            sum(counts.values()),
        ),
    )
