"""Metrics of written answers, each one number an answer.

To add one, write a file and name it in `METRICS` (docs/evaluation.md shows one whole).
"""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.standard import (
    CONFIDENCE,
    EXACT_MATCH,
    NONSENSE,
    REPETITIVE,
    SENSITIVE,
    TOKEN_F1,
    VAGUE,
)

__all__ = ["METRICS", "Metric", "WrittenAnswer"]

METRICS = (EXACT_MATCH, TOKEN_F1, VAGUE, NONSENSE, REPETITIVE, SENSITIVE, CONFIDENCE)
"""What is measured of written answers, in the order of the tables."""
