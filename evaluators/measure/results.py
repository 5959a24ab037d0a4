"""Everything that was measured as rows of results.parquet: a row a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluators.stats.estimates import Estimate

WHOLE = "all"
"""Name of the group of everything."""
_LEAF = frozenset(Estimate.__annotations__)


def result_rows(group: str, found: Mapping[str, Any], *, least: int) -> Iterator[dict[str, Any]]:
    """A row for each estimate in `found`, however deep, under its dotted name.

    Args:
        least: controls that an interval needs; a row without one says so in `note`.
    """
    for metric, leaf in _leaves(found):
        few = leaf["low"] is None
        yield {
            "group": group,
            "metric": metric,
            **leaf,
            "note": f"{leaf['n']} controls; an interval needs {least}" if few else None,
        }


def robustness_rows(tree: Mapping[str, Any], *, least: int) -> Iterator[dict[str, Any]]:
    """Rows of what the step `robustness` measured: each metric under the name of its change.

    Those of held-out categories stand under split test_ood.

    Args:
        tree: what the step writes as JSON.
    """
    for split, views in tree["views"].items():
        for view, changes in views.items():
            for change, found in changes.items():
                # a fine-tune alone is another target
                about = {"split": split, "view": view, "foreign_target": "moved" in found}
                for row in result_rows(WHOLE, {change: found}, least=least):
                    yield {**about, **row}
                for name in ("moved", "out_of_distribution"):
                    if found.get(name) is not None:
                        n = found["right"]["drop"]["n"]
                        yield {**about, **_single(f"{change}.{name}", found[name], n)}
    for view, found in tree["held_out"].items():
        about = {"split": "test_ood", "view": view, "foreign_target": False}
        for row in result_rows(WHOLE, {"held_out": found}, least=least):
            yield {**about, **row}


def judged_rows(tree: Mapping[str, Any], *, least: int) -> Iterator[dict[str, Any]]:
    """Rows of a judge's verdicts, without `foreign_target`.

    Args:
        tree: {SPLIT: {VIEW: verdicts and agreement}} (evaluators/answers/judge.py).
    """
    for split, views in tree.items():
        for view, found in views.items():
            about = {"split": split, "view": view}
            for row in result_rows(WHOLE, {"judged": found}, least=least):
                yield {**about, **row}
            agreed = found["agreement"]
            for name in ("raw", "kappa"):
                if agreed[name] is not None:
                    row = _single(f"judged.agreement.{name}", agreed[name], None)
                    yield {**about, **row, "note": f"{agreed['n']} answers, judged twice"}


def _single(metric: str, value: float, n: int | None) -> dict[str, Any]:
    """The row of a number that has no interval."""
    return {
        "group": WHOLE,
        "metric": metric,
        "estimate": value,
        "low": None,
        "high": None,
        "n": n,
        "note": "without an interval",
    }


def _leaves(found: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if not isinstance(value, Mapping):
            continue
        if value.keys() == _LEAF:
            yield ".".join((*path, name)), value
        else:
            yield from _leaves(value, (*path, name))
