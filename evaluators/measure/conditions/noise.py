"""`noise`: random directions with the norms of the row's tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decoder.reading import Reading
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


def _read(row: Row, context: EvalContext) -> Reading:
    own = context.own_reading(row)
    assert own.vectors is not None
    random = context.make_generator(row).standard_normal(own.vectors.shape)
    norms = np.linalg.norm(own.vectors, axis=1, keepdims=True)
    random *= norms / np.linalg.norm(random, axis=1, keepdims=True)
    return replace(own, vectors=random.astype(np.float32))


NOISE = Condition("noise", _read)
