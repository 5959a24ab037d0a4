"""`wrong_layer`: the row's own activations from another stored layer."""

from __future__ import annotations

from dataclasses import replace

from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


def farthest_layer(store: ActivationSource, layer: int) -> int | None:
    """Find the stored layer farthest from `layer`, of two the earlier; None if there is no other.

    Neighbouring blocks differ little, so the farthest is the strictest check.
    """
    others = [other for other in store.layers if other != layer]
    return min(others, key=lambda other: (-abs(other - layer), other), default=None)


def _read(row: Row, context: EvalContext) -> Reading:
    wrong = farthest_layer(context.store, context.layers.layers[0])
    assert wrong is not None
    # where the prompt names the layer, it names the right one
    return replace(context.own_reading(row), vectors=context.read(row, wrong).vectors)


def _why_unavailable(store: ActivationSource, layers: ReadLayers) -> str | None:
    if len(layers.layers) > 1:
        return f"the decoder reads layers {list(layers.layers)} together"
    if farthest_layer(store, layers.layers[0]) is not None:
        return None
    return f"the store has layer {layers.layers[0]} alone; add another to dump.layers"


WRONG_LAYER = Condition("wrong_layer", _read, why_unavailable=_why_unavailable)
