"""What a report shows beyond the loss panel: groups of controls, answer quality, identification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.tables import SPLITS, VIEWS
from core.wording import sort_known
from evaluators.measure.result_files import JUDGED_FILE
from pipelines.reports.run.files import Leaf, artifact_file, json_object, leaf_of, table_rows
from pipelines.reports.run.inputs import ReportInputs

GROUP_METRICS = (
    "answer_loss.right",
    "below_untrained",
    "grounded_gain",
    "information_gain",
)
"""Numbers that are shown of each group of controls."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some controls of a split and view: their numbers by metric, and a word where too few."""

    split: str
    view: str
    name: str
    leaves: dict[str, Leaf | None]
    n: int
    note: str


@dataclass(frozen=True, slots=True)
class Quality:
    """One metric of the written answers of a split and view."""

    split: str
    view: str
    metric: str
    right: Leaf | None
    other: Leaf | None
    gain: Leaf | None


@dataclass(frozen=True, slots=True)
class Agreed:
    """How far a judge's two passes over the answers of a split and view agree.

    Attributes:
        raw: share of `n` answers that got the same verdict twice.
        kappa: the same, over what chance would give (Cohen).
        unread: questions that are left out, as a verdict could not be read.
    """

    split: str
    view: str
    n: int
    raw: float | None
    kappa: float | None
    unread: int


@dataclass(frozen=True, slots=True)
class Identified:
    """Identification on a split and view."""

    split: str
    view: str
    accuracy: dict[str, Leaf | None]
    chance: Leaf | None
    grounded: Leaf | None
    information: Leaf | None
    items: int
    without: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A condition that a split and view could not have, and why."""

    split: str
    view: str
    condition: str
    why: str


@dataclass(frozen=True, slots=True)
class PanelData:
    """All of it; a part that was not measured is empty."""

    groups: tuple[Group, ...]
    qualities: tuple[Quality, ...]
    agreed: tuple[Agreed, ...]
    identified: tuple[Identified, ...]
    left_out: tuple[LeftOut, ...]


def read_panel(inputs: ReportInputs) -> PanelData:
    """What the run's evaluation holds beyond the loss panel.

    Raises:
        DamagedError: a file of the evaluation is there but cannot be read.
    """
    step = next((one for one in inputs.steps if one.step == "evaluate"), None)
    path = artifact_file(step, "metrics.json")
    tree = (json_object(path.read_text(), path) if path else inputs.metrics).get("reading") or {}
    cases = [
        (split, view, tree[split][view])
        for split in sort_known(tree, SPLITS)
        for view in sort_known(tree[split], VIEWS)
    ]
    judged = _judged(inputs)
    return PanelData(
        groups=_groups(table_rows(artifact_file(step, "results.parquet"))),
        qualities=tuple(
            Quality(
                split,
                view,
                metric,
                *(leaf_of(sides.get(name)) for name in ("right", "other", "difference")),
            )
            for split, view, found in cases
            for metric, sides in (
                *(found.get("answers") or {}).items(),
                *_verdicts(judged.get(split, {}).get(view, {})),
            )
        ),
        agreed=tuple(
            Agreed(split, view, **found["agreement"], unread=found["unread"])
            for split, views in judged.items()
            for view, found in views.items()
        ),
        identified=tuple(
            _identified(split, view, found["identification"])
            for split, view, found in cases
            if found.get("identification")
        ),
        left_out=tuple(
            LeftOut(split, view, condition, why)
            for split, view, found in cases
            for condition, why in (found.get("left_out") or {}).items()
        ),
    )


def _judged(inputs: ReportInputs) -> dict[str, Any]:
    step = next((one for one in inputs.steps if one.step == "judge"), None)
    path = artifact_file(step, JUDGED_FILE)
    return json_object(path.read_text(), path)["judged"] if path else {}


def _verdicts(judged: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A judge's verdicts as measures of the answers."""
    return [(f"judged {name}", sides) for name, sides in judged.get("shares", {}).items()]


def _identified(split: str, view: str, found: Mapping[str, Any]) -> Identified:
    return Identified(
        split=split,
        view=view,
        accuracy={name: leaf_of(leaf) for name, leaf in found["accuracy"].items()},
        chance=leaf_of(found["chance"]),
        grounded=leaf_of(found.get("hidden_gain") or found.get("grounded_gain")),
        information=leaf_of(found["information_gain"]),
        items=found["asked"],
        without=found["left_out"],
    )


def _groups(rows: list[dict[str, Any]]) -> tuple[Group, ...]:
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "=" in row["group"] and row["metric"] in GROUP_METRICS:
            key = (row["split"], row["view"], row["group"])
            found.setdefault(key, {})[row["metric"]] = row
    return tuple(
        Group(
            split=split,
            view=view,
            name=name,
            leaves={metric: leaf_of(own.get(metric)) for metric in GROUP_METRICS},
            n=max(row["n"] for row in own.values()),
            note=next((row["note"] for row in own.values() if row["note"]), ""),
        )
        for (split, view, name), own in found.items()
    )
