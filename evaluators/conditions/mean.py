"""`mean`: the training split's mean token, repeated."""

from __future__ import annotations

import numpy as np

from decoder.batch import Reading
from evaluators.conditions.base import Condition, Scene
from trainers.rows import Row


def _give(row: Row, scene: Scene) -> Reading:
    own = scene.own(row)
    vectors = np.tile(scene.mean_token, (own.n, 1))
    return Reading(vectors, own.n, own.first_position)


MEAN = Condition("mean", _give)
