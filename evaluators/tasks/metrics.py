"""The typed model of what reading tasks measured: tasks.json, and `tasks` of `run --json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.records.estimate import Estimate
from evaluators.measure.metrics import Metrics
from evaluators.tasks.rows import Headline

SettingValue = int | float | str
MEAN = "mean_of_relations"
"""Name of the mean over relations, among the tasks."""


class TryMetrics(Metrics):
    """A setting that was tried on validation rows.

    Attributes:
        setting: its values by name.
        validation: the task's headline measure.
    """

    setting: dict[str, SettingValue]
    validation: float


class PredictorMetrics(Metrics):
    """One method on one task; fractions of the test subjects.

    Attributes:
        sees: `activations`, `text` or `nothing` of a row.
        setting: the setting that was best on validation rows.
        contained: answers that name the object, or yes or no; not of hidden prompts.
        exact: answers that are it and nothing else; not of hidden prompts.
        similarity: F1 of the words of answer and hidden control; hidden prompts alone.
        judged: answers of which an LLM says that they say the same as the hidden control; where
            `tasks.judge` asks one.
        chosen: right choices among the options of a row.
        lead: the task's headline measure of LIT less this method's, paired; absent for LIT itself.
        by_layer: that measure by block that is read, each with its best setting on validation.
        tries: all settings that were tried.
        checkpoints: of LIT, the checkpoints among which its own training chose, each another try.
    """

    sees: str
    setting: dict[str, SettingValue]
    contained: Estimate | None = None
    exact: Estimate | None = None
    similarity: Estimate | None = None
    judged: Estimate | None = None
    chosen: Estimate
    lead: Estimate | None = None
    by_layer: dict[str, Estimate]
    tries: list[TryMetrics]
    checkpoints: int | None = None

    @property
    def tried(self) -> int:
        """Number of configurations among which validation chose: settings times checkpoints."""
        return len(self.tries) * max(self.checkpoints or 1, 1)

    @property
    def written(self) -> Estimate:
        """What was measured of its written answers."""
        return self.contained or self.similarity or Estimate()


class TaskMetrics(Metrics):
    """Results of every method on one reading task.

    Attributes:
        headline: the measure by which settings are chosen and methods compared.
        counts: subjects, and rows that were dropped, by rule.
        why_not: why nothing was measured; absent where something was.
        choices: test rows that choose among options which they share with others.
        chance: share of right choices of a method that ignores the activations.
        facts: other numbers about the rows: `map_pairs`, `map_error` (a share of the variance of
            held-out activations) and `unfamiliar` (share of test rows that are flagged) of a shift.
        predictors: by name.
    """

    headline: Headline = "contained"
    counts: dict[str, int]
    why_not: str | None = None
    choices: int
    chance: float = 0.25
    facts: dict[str, float] | None = None
    predictors: dict[str, PredictorMetrics]

    @property
    def n(self) -> int:
        """Test subjects, or hidden prompts; 0 where nothing was measured."""
        return max((one.written.n for one in self.predictors.values()), default=0)

    def cell(self, predictor: str, measure: str) -> Estimate | None:
        """Return a measure of a method; None where it was not measured."""
        own = self.predictors.get(predictor)
        found: Estimate | None = None if own is None else getattr(own, measure)
        return found


class TasksMetrics(Metrics):
    """All tasks, by name."""

    tasks: dict[str, TaskMetrics]


def with_verdicts(tasks: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    """Add a judge's verdicts on each method to what was measured of it."""
    found = dict(tasks)
    for name, verdicts in judged.items():
        methods = dict(found[name]["predictors"])
        for method, own in verdicts["predictors"].items():
            methods[method] = {**methods[method], **own}
        found[name] = {**found[name], "predictors": methods}
    return found
