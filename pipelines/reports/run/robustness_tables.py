"""What changes cost a decoder, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.reports.run.robustness import robustness_data
from pipelines.reports.run.tables import estimate
from pipelines.reports.tables import markdown


def robustness_tables(found: Mapping[str, Any]) -> str:
    """The changes, then held-out categories where both splits were judged.

    Losses and gains in nats a token with 95 % intervals over controls; a drop above zero is harm.

    Args:
        found: what `evaluators.robustness.robustness` returns.
    """
    data = robustness_data(found)
    head = ["split", "view", "change", "n", "right", "drop", "gain", "drop of the gain"]
    head += ["own answer before, after", "moved", "out of distribution"]
    lines = [
        [
            one.split,
            one.view,
            one.name,
            "–" if one.drop is None else str(one.drop.n),
            *map(estimate, (one.altered, one.drop, one.gain, one.gain_drop)),
            "–" if one.own_answer is None else ", ".join(map(estimate, one.own_answer)),
            _share(one.moved),
            _share(one.out_of_distribution),
        ]
        for one in data.changes
    ]
    tables = [markdown(head, lines)]
    if data.held_out:
        kept = [
            [one.view, one.measure, *map(estimate, (one.test, one.test_ood, one.drop))]
            for one in data.held_out
        ]
        tables.append(markdown(["view", "measure", "test", "test_ood", "drop"], kept))
    return "\n\n".join(tables)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
