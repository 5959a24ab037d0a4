"""Everything that was measured as rows of results.parquet: a row a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluators.statistics import Estimate

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


def _leaves(found: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if not isinstance(value, Mapping):
            continue
        if value.keys() == _LEAF:
            yield ".".join((*path, name)), value
        else:
            yield from _leaves(value, (*path, name))
