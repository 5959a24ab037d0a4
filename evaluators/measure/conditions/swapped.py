"""`swapped`: the row's own visible text, run by the target under another control.

The decoder sees the same tokens at the same positions; all that differs is what the hidden control
left in their activations. `shifted_positions` is its check: the row's own activations at the
positions that they had under the other control, which exposes a decoder that tells controls by
the length of what is hidden.
"""

from __future__ import annotations

from dataclasses import replace

from decoder.reading import Reading
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


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
