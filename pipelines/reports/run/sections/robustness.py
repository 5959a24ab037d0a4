"""Changes of rows and of the target, in words and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.text.text_tables import markdown
from core.text.wording import share
from evaluators.measure.metrics import ChangeMetrics, RobustnessMetrics

_CHANGES = {
    "decoy": "another control quoted",
    "forbidden": "revealing it forbidden",
    "novel_question": "other words of the question",
}


@dataclass(frozen=True, slots=True)
class NamedChange:
    """One change on one split and view; a drop above zero is harm."""

    split: str
    view: str
    name: str
    metrics: ChangeMetrics

    @property
    def excluded(self) -> int:
        """Rows that were not measured."""
        return sum(self.metrics.excluded.values())


def named_changes(found: RobustnessMetrics) -> Iterator[NamedChange]:
    """Name every change, in the order in which they were measured."""
    for split, by_view in found.views.items():
        for view, changes in by_view.items():
            for name, metrics in changes.items():
                yield NamedChange(split, view, _name(name), metrics)


def robustness_tables(found: RobustnessMetrics) -> str:
    """Write the changes, then held-out categories where both splits were judged, as Markdown.

    Losses in nats per token with 95 % intervals over controls.
    """
    head = ["split", "view", "change", "n", "right", "drop", "none − right", "drop of it"]
    head += ["own answer before, after", "moved", "out of distribution"]
    lines = [
        [
            one.split,
            one.view,
            one.name,
            str(one.metrics.right.drop.n),
            str(one.metrics.right.altered),
            str(one.metrics.right.drop),
            str(one.metrics.none_minus_right.altered),
            str(one.metrics.none_minus_right.drop),
            _own_answer(one.metrics),
            share(one.metrics.moved),
            share(one.metrics.out_of_distribution),
        ]
        for one in named_changes(found)
    ]
    tables = [markdown(head, lines)]
    if found.held_out:
        kept = [
            [view, name.replace("_minus_", " − "), *map(str, (own.test, own.test_ood, own.drop))]
            for view, metrics in found.held_out.items()
            for name, own in (
                ("right", metrics.right),
                ("none_minus_right", metrics.none_minus_right),
            )
        ]
        tables.append(markdown(["view", "measure", "test", "test_ood", "drop"], kept))
    return "\n\n".join(tables)


def _own_answer(metrics: ChangeMetrics) -> str:
    found = metrics.own_answer
    return "–" if found is None else f"{found.plain}, {found.altered}"


def _name(name: str) -> str:
    kind, _, strength = name.partition(":")
    return (
        f"target fine-tuned, strength {strength}" if kind == "shift" else _CHANGES.get(kind, kind)
    )
