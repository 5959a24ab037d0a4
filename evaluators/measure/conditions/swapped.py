"""`swapped`: the row's own visible text, run by the target under another control.

The decoder sees the same tokens at the same positions; all that differs is what the hidden control
left in their activations. `shifted_positions` is its check: the row's own activations at the
positions that they had under the other control, which exposes a decoder that tells controls by
the length of what is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from activation_store.target.swaps import make_swaps
from core.tables import Conversation
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.rows import Row


def _swapped(row: Row, context: EvalContext) -> Reading:
    theirs = context.read_example(context.swaps[row.example_id], row.conversation.view)
    return replace(theirs, first_position=context.own_reading(row).first_position)


def _shifted(row: Row, context: EvalContext) -> Reading:
    theirs = context.read_example(context.swaps[row.example_id], row.conversation.view)
    return replace(context.own_reading(row), first_position=theirs.first_position)


SWAPPED = Condition("swapped", _swapped)
SHIFTED_POSITIONS = Condition("shifted_positions", _shifted)
NEED_SWAPS = (SWAPPED.name, SHIFTED_POSITIONS.name)
"""Conditions that only rows of masked views have, and those with another control to swap with."""


def find_swaps(
    rows: Sequence[Conversation], store: ActivationSource, split: str, view: str
) -> dict[str, str]:
    """Find the swapped conversation of each row of a split and view.

    Args:
        rows: every conversation of the table, so that controls are paired as the dump paired them.
        store: source of activations.
        split: split that is evaluated.
        view: view that is evaluated.

    Returns:
        Example id of the swapped conversation by example id; rows for which none was dumped, or
        one with other visible tokens, are absent.
    """
    wanted = [r for r in rows if r.split == split and r.view == view and r.example_id in store]
    places = {row.example_id: store.place(row.example_id) for row in wanted}
    control_tokens = {example: place.withheld for example, place in places.items()}
    found = {}
    for swap in make_swaps(wanted, control_tokens, [row.split for row in wanted]):
        row, swapped = swap.row.example_id, swap.swapped.example_id
        if swapped not in store:
            continue
        theirs, mine = store.place(swapped), places[row]
        visible = store.tokens(row)[mine.withheld :]
        if np.array_equal(store.tokens(swapped)[theirs.withheld :], visible):
            found[row] = swapped
    return found
