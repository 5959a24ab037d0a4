"""`none`: nothing is injected; the placeholders keep their own embeddings."""

from __future__ import annotations

from dataclasses import replace

from decoder.reading import Reading
from evaluators.measure.conditions.base import Condition, EvalContext
from trainers.data.rows import Row


def _read(row: Row, context: EvalContext) -> Reading:
    own = context.own_reading(row)
    return replace(own, vectors=None)


NONE = Condition("none", _read)
