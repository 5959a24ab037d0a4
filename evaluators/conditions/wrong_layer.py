"""`wrong_layer`: the row's own activations from another stored layer."""

from __future__ import annotations

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from evaluators.conditions.base import Condition, Scene
from trainers.rows import Row


def other_layer(store: ActivationStore, layer: int) -> int | None:
    """The stored layer farthest from `layer`, of two the earlier; None where there is no other.

    Neighbouring blocks differ little, so the farthest says most.
    """
    others = [other for other in store.layers if other != layer]
    return min(others, key=lambda other: (-abs(other - layer), other), default=None)


def _give(row: Row, scene: Scene) -> Reading:
    wrong = other_layer(scene.store, scene.layer)
    assert wrong is not None
    return scene.read(row, wrong)


def _absent(store: ActivationStore, layer: int) -> str | None:
    if other_layer(store, layer) is not None:
        return None
    return f"the store has layer {layer} alone; add another to dump.layers"


WRONG_LAYER = Condition("wrong_layer", _give, absent=_absent)
