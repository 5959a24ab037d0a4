"""The typed model of what reading tasks measured: tasks.json, and `tasks` of `run --json`."""

from __future__ import annotations

from evaluators.measure.metrics import Metrics
from evaluators.stats.estimates import Estimate

SettingValue = int | float | str


class TryMetrics(Metrics):
    """A setting that was tried on validation rows.

    Attributes:
        setting: its values by name.
        validation: share of answers that name the object.
    """

    setting: dict[str, SettingValue]
    validation: float


class PredictorMetrics(Metrics):
    """One method on one task; shares of 1 over test subjects.

    Attributes:
        sees: `activations`, `text` or `nothing` of a row.
        setting: the setting that was best on validation rows.
        contained: answers that name the object.
        exact: answers that are the object and nothing else.
        chosen: right choices among four answers; 0.25 is what is had without reading.
        lead: `contained` of LIT less this method's, paired; absent for LIT itself.
        by_layer: `contained` by block that is read, each with its best setting on validation.
        tries: all settings that were tried.
    """

    sees: str
    setting: dict[str, SettingValue]
    contained: Estimate
    exact: Estimate
    chosen: Estimate
    lead: Estimate | None = None
    by_layer: dict[str, Estimate]
    tries: list[TryMetrics]


class TaskMetrics(Metrics):
    """One task.

    Attributes:
        counts: subjects, and rows that were dropped, by rule.
        why_not: why nothing was measured; absent where something was.
        choices: test rows that share a choice of four with three others.
        predictors: by name.
    """

    counts: dict[str, int]
    why_not: str | None = None
    choices: int
    predictors: dict[str, PredictorMetrics]


class TasksMetrics(Metrics):
    """All tasks, by name."""

    tasks: dict[str, TaskMetrics]
