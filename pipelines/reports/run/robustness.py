"""What a report says about robustness: changes of a row, held-out categories, a moved target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.reports.run.files import Leaf, leaf_of
from pipelines.reports.run.inputs import ReportInputs

_WORDS = {
    "decoy": "another control quoted",
    "forbidden": "revealing it forbidden",
    "novel_question": "other words of the question",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one split and view; a drop above zero is harm."""

    split: str
    view: str
    name: str
    plain: Leaf | None
    altered: Leaf | None
    drop: Leaf | None
    gain: Leaf | None
    gain_drop: Leaf | None
    own_answer: tuple[Leaf | None, Leaf | None] | None
    moved: float | None
    out_of_distribution: float | None
    excluded: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Splits `test` and `test_ood` of one view; the drop is not paired."""

    view: str
    measure: str
    test: Leaf | None
    test_ood: Leaf | None
    drop: Leaf | None


@dataclass(frozen=True, slots=True)
class RobustnessData:
    """All that the section shows; `losses` are the fine-tune's, at its first and last step."""

    changes: tuple[Change, ...]
    held_out: tuple[HeldOut, ...]
    losses: tuple[float, float] | None


def read_robustness(inputs: ReportInputs) -> RobustnessData | None:
    """The robustness of the run's decoder; None where it was not measured."""
    found = inputs.metrics.get("robustness")
    return robustness_data(found) if found else None


def robustness_data(found: Mapping[str, Any]) -> RobustnessData:
    """What the step `robustness` found (`evaluators.robustness.robustness`), flat."""
    losses = (found.get("fine_tune") or {}).get("losses")
    return RobustnessData(
        changes=tuple(_changes(found["views"])),
        held_out=tuple(
            HeldOut(view, name, *(leaf_of(each.get(k)) for k in ("test", "test_ood", "drop")))
            for view, own in found["held_out"].items()
            for name, each in own.items()
        ),
        losses=None if losses is None else (losses[0], losses[-1]),
    )


def _changes(views: Mapping[str, Any]) -> Iterator[Change]:
    for split, by_view in views.items():
        for view, changes in by_view.items():
            for name, own in changes.items():
                yield Change(
                    split=split,
                    view=view,
                    name=_name(name),
                    plain=leaf_of(own["right"]["plain"]),
                    altered=leaf_of(own["right"]["altered"]),
                    drop=leaf_of(own["right"]["drop"]),
                    gain=leaf_of(own["none_minus_right"]["altered"]),
                    gain_drop=leaf_of(own["none_minus_right"]["drop"]),
                    own_answer=_own_answer(own.get("own_answer")),
                    moved=own.get("moved"),
                    out_of_distribution=own.get("out_of_distribution"),
                    excluded=sum(own["excluded"].values()),
                )


def _own_answer(found: Mapping[str, Any] | None) -> tuple[Leaf | None, Leaf | None] | None:
    return None if not found else (leaf_of(found["plain"]), leaf_of(found["altered"]))


def _name(name: str) -> str:
    kind, _, strength = name.partition(":")
    return f"target fine-tuned, strength {strength}" if kind == "shift" else _WORDS.get(kind, kind)
