"""`mean`: the training split's mean token, repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decoder.reading import Reading
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


def _read(row: Row, context: EvalContext) -> Reading:
    own = context.own_reading(row)
    return replace(own, vectors=np.repeat(context.mean_token, own.n, axis=0))


MEAN = Condition("mean", _read)
