"""What the steps of a run measured, read from their artifacts into the typed model of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.records.estimate import Estimate
from core.records.tables import SPLITS, VIEWS
from core.text.wording import sort_known, sort_pairs
from evaluators.control.metrics import ControlMetrics, JudgedControl
from evaluators.measure.metrics import (
    EvaluationMetrics,
    JudgedMetrics,
    JudgedSlice,
    PairedEstimates,
    RobustnessMetrics,
    SliceMetrics,
)
from evaluators.measure.result_files import JUDGED_FILE, METRICS_FILE
from evaluators.tasks.metrics import TasksMetrics
from pipelines.reports.run.inputs import ReportInputs, artifact_file

CONDITIONS = (
    *("right", "swapped", "shifted_positions", "other", "mean", "none", "noise", "wrong_layer"),
    *("prior", "visible_text", "text"),
)
"""Order in which conditions are shown; any other comes after them, by name."""


@dataclass(frozen=True, slots=True)
class ReadingResult:
    """What an evaluation measured on one split and view.

    Attributes:
        split: of the rows.
        view: of the rows.
        metrics: everything that was measured; nats per token.
        judged: verdicts of an LLM on the written answers; None where none were asked for.
    """

    split: str
    view: str
    metrics: SliceMetrics
    judged: JudgedSlice | None = None

    @property
    def losses(self) -> dict[str, Estimate]:
        """Answer losses that were measured, in the order in which they are shown."""
        found = self.metrics.answer_loss
        return {name: found[name] for name in sort_known(found, CONDITIONS) if found[name].measured}

    @property
    def untrained(self) -> dict[str, Estimate]:
        """Losses of the untrained decoder that were measured."""
        found = self.metrics.untrained
        return {name: found[name] for name in sort_known(found, CONDITIONS) if found[name].measured}

    @property
    def answer_measures(self) -> list[tuple[str, PairedEstimates]]:
        """What was measured of written answers, by name, a judge's verdicts after it."""
        found = list((self.metrics.answers or {}).items())
        if self.judged is not None:
            found += [(f"judged {name}", own) for name, own in self.judged.shares.items()]
        return found

    @property
    def hides_control(self) -> bool:
        """Whether the control is hidden from the decoder."""
        return self.view != "control" and not self.view.endswith("+visible")

    @property
    def n(self) -> int:
        """Controls behind the numbers."""
        return max((estimate.n for estimate in self.losses.values()), default=0)


def read_readings(inputs: ReportInputs) -> tuple[ReadingResult, ...]:
    """Read what the run's evaluation measured, in the order in which it is shown.

    Raises:
        DamagedError: a file of the evaluation is there but cannot be read.
    """
    path = artifact_file(inputs.step("evaluate"), METRICS_FILE)
    if path is None:
        return ()
    judged = artifact_file(inputs.step("judge"), JUDGED_FILE)
    verdicts = JudgedMetrics.read(judged) if judged else JudgedMetrics(judged={})
    return tuple(_readings(EvaluationMetrics.read(path), verdicts))


def readings_of(tree: Mapping[str, Any]) -> tuple[ReadingResult, ...]:
    """Read the tree `reading` of `run --json`, in the order in which it is shown.

    Raises:
        pydantic.ValidationError: it is no such tree.
    """
    metrics = EvaluationMetrics.model_validate({"reading": tree})
    return tuple(_readings(metrics, JudgedMetrics(judged={})))


def read_robustness(inputs: ReportInputs) -> RobustnessMetrics | None:
    """Return what the step `robustness` measured; None where it did not run."""
    found = inputs.metrics.get("robustness")
    return RobustnessMetrics.model_validate(found) if found else None


def read_tasks(inputs: ReportInputs) -> TasksMetrics | None:
    """Return what the step `tasks` measured; None where it did not run."""
    found = inputs.metrics.get("tasks")
    return None if found is None else TasksMetrics.model_validate({"tasks": found})


def read_control(inputs: ReportInputs) -> ControlMetrics | None:
    """Return what the step `control` measured; None where it did not run."""
    found = inputs.metrics.get("control")
    return None if found is None else ControlMetrics.model_validate(found)


def read_control_judged(inputs: ReportInputs) -> dict[str, JudgedControl]:
    """Return what an LLM judged of steered replies, by control; empty where none did."""
    found = inputs.metrics.get("control_judged", {})
    return {name: JudgedControl.model_validate(own) for name, own in found.items()}


def _readings(metrics: EvaluationMetrics, judged: JudgedMetrics) -> Iterator[ReadingResult]:
    pairs = ((split, view) for split, views in metrics.reading.items() for view in views)
    for split, view in sort_pairs(pairs, SPLITS, VIEWS):
        verdicts = judged.judged.get(split, {}).get(view)
        yield ReadingResult(split, view, metrics.reading[split][view], verdicts)
