"""`right`, `mean`, `none`, `noise`: the row's own reading, its activations kept or replaced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decoder.reading import Reading
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


def _repeat_mean(row: Row, context: EvalContext) -> Reading:
    own = context.own_reading(row)
    return replace(own, vectors=np.repeat(context.mean_token, own.n, axis=0))


def _draw_directions(row: Row, context: EvalContext) -> Reading:
    own = context.own_reading(row)
    assert own.vectors is not None
    random = context.make_generator(row).standard_normal(own.vectors.shape)
    norms = np.linalg.norm(own.vectors, axis=1, keepdims=True)
    random *= norms / np.linalg.norm(random, axis=1, keepdims=True)
    return replace(own, vectors=random.astype(np.float32))


RIGHT = Condition("right", lambda row, context: context.own_reading(row))
MEAN = Condition("mean", _repeat_mean)
NONE = Condition("none", lambda row, context: replace(context.own_reading(row), vectors=None))
NOISE = Condition("noise", _draw_directions)
