"""Tables of what changes of rows and of the target cost a decoder."""

from __future__ import annotations

from core.records.estimate import Estimate
from core.records.result_table import ResultTable
from core.text.wording import share
from evaluators.measure.metrics import ChangeMetrics, RobustnessMetrics

_CHANGES = {
    "decoy": "another control quoted",
    "forbidden": "revealing it forbidden",
    "novel_question": "other words of the question",
}


def robustness_tables(found: RobustnessMetrics) -> str:
    """Write the changes, then held-out categories where both splits were judged, as Markdown."""
    tables = [change_table(found), held_out_table(found)]
    return "\n\n".join(table.to_markdown() for table in tables if table is not None)


def change_table(found: RobustnessMetrics) -> ResultTable:
    """Collect every change: losses in nats per token; a drop above zero is harm."""
    head = ["split", "view", "change", "n", "right", "changed", "drop", "none − right"]
    head += ["drop of it", "own answer before", "own answer after", "moved"]
    head += ["out of distribution", "left out"]
    return ResultTable(
        head=tuple(head),
        rows=tuple(
            (
                *(split, view, _name(name), metrics.right.drop.n),
                *(metrics.right.plain, metrics.right.altered, metrics.right.drop),
                *(metrics.none_minus_right.altered, metrics.none_minus_right.drop),
                *_own_answer(metrics),
                *(share(metrics.moved), share(metrics.out_of_distribution)),
                sum(metrics.excluded.values()),
            )
            for split, by_view in found.views.items()
            for view, changes in by_view.items()
            for name, metrics in changes.items()
        ),
        names=3,
    )


def held_out_table(found: RobustnessMetrics) -> ResultTable | None:
    """Collect losses of held-out categories, in nats per token; None if there are none."""
    table = ResultTable(
        head=("view", "measure", "test", "test_ood", "drop"),
        rows=tuple(
            (view, name, own.test, own.test_ood, own.drop)
            for view, metrics in found.held_out.items()
            for name, own in (
                ("right", metrics.right),
                ("none − right", metrics.none_minus_right),
            )
        ),
        names=2,
    )
    return table if found.held_out else None


def _own_answer(metrics: ChangeMetrics) -> tuple[Estimate | None, Estimate | None]:
    """Return how often its own answer was likelier than the decoy's, before and after."""
    found = metrics.own_answer
    return (None, None) if found is None else (found.plain, found.altered)


def _name(name: str) -> str:
    kind, _, strength = name.partition(":")
    return (
        f"target fine-tuned, strength {strength}" if kind == "shift" else _CHANGES.get(kind, kind)
    )
