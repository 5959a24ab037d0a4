"""The same numbers over parts of the controls: by kind, category and type of question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.measure.result_files import RESULTS_FILE, read_rows
from evaluators.stats.estimates import Estimate
from pipelines.reports.run.files import artifact_file
from pipelines.reports.run.inputs import ReportInputs

METRICS = ("answer_loss.right", "below_untrained", "grounded_gain", "information_gain")
"""Numbers that are shown of each group of controls."""


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Some controls of a split and view.

    Attributes:
        split: of the rows.
        view: of the rows.
        name: `kind=persona` and the like.
        estimates: numbers in the order of `METRICS`; nats per token.
        note: why there is no interval; empty where there is one.
    """

    split: str
    view: str
    name: str
    estimates: tuple[Estimate, ...]
    note: str

    @property
    def n(self) -> int:
        """Controls of the group."""
        return max(estimate.n for estimate in self.estimates)


def read_groups(inputs: ReportInputs) -> list[tuple[str, str, list[ControlGroup]]]:
    """Read the groups of each split and view, as (split, view, groups).

    Raises:
        DamagedError: the file of results is there but cannot be read.
    """
    found: dict[tuple[str, str, str], dict[str, dict[str, object]]] = {}
    for row in read_rows(artifact_file(inputs.step("evaluate"), RESULTS_FILE)):
        if "=" in row["group"] and row["metric"] in METRICS:
            key = (row["split"], row["view"], row["group"])
            found.setdefault(key, {})[row["metric"]] = row
    groups = [_group(*key, rows) for key, rows in found.items()]
    return [(split, view, _of(groups, split, view)) for split, view in _views(groups)]


def _group(split: str, view: str, name: str, rows: dict[str, dict[str, object]]) -> ControlGroup:
    fields = ("estimate", "low", "high", "n")
    estimates = tuple(
        Estimate.model_validate({field: rows[metric][field] for field in fields})
        if metric in rows
        else Estimate()
        for metric in METRICS
    )
    note = next((str(row["note"]) for row in rows.values() if row["note"]), "")
    return ControlGroup(split, view, name, estimates, note)


def _views(groups: Sequence[ControlGroup]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((group.split, group.view) for group in groups))


def _of(groups: Sequence[ControlGroup], split: str, view: str) -> list[ControlGroup]:
    return [group for group in groups if (group.split, group.view) == (split, view)]
