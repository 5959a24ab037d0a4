"""Conditions: the activations that the decoder is given, its own and those to compare with.

| condition | the decoder is given |
|---|---|
| right | the row's own activations |
| swapped | those of the row's own visible text under another control (masked views) |
| shifted_positions | its own, at the positions that they have in `swapped` |
| other | those of another control of the same kind and split, of the nearest length |
| mean | the training split's mean token, repeated |
| none | the placeholders' own embeddings |
| noise | random directions with the norms of the row's tokens |
| wrong_layer | the row's own activations from another stored layer |

A condition is its name and the reading of a row. To add one, write a file, name it in `CONDITIONS`,
and let the YAML know the name (`evaluators.config.ConditionName`).
"""

from __future__ import annotations

from evaluators.measure.conditions.base import Condition, EvalContext
from evaluators.measure.conditions.other import OTHER, pair_with_other_controls
from evaluators.measure.conditions.own_reading import MEAN, NOISE, NONE, RIGHT
from evaluators.measure.conditions.swapped import NEED_SWAPS, SHIFTED_POSITIONS, SWAPPED
from evaluators.measure.conditions.wrong_layer import WRONG_LAYER

__all__ = [
    "CONDITIONS",
    "NEED_SWAPS",
    "Condition",
    "EvalContext",
    "pair_with_other_controls",
]

CONDITIONS = {
    one.name: one
    for one in (RIGHT, SWAPPED, SHIFTED_POSITIONS, OTHER, MEAN, NONE, NOISE, WRONG_LAYER)
}
"""Condition by name."""
