"""`right`: the row's own activations."""

from __future__ import annotations

from evaluators.measure.conditions.base import Condition

RIGHT = Condition("right", lambda row, context: context.own_reading(row))
