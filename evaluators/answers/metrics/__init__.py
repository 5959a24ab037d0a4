"""Metrics of written answers, each a file of its own with one number an answer.

To add one, write the file and name it in `METRICS` (docs/evaluation.md shows one whole).
"""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.confidence import CONFIDENCE
from evaluators.answers.metrics.exact_match import EXACT_MATCH
from evaluators.answers.metrics.nonsense import NONSENSE
from evaluators.answers.metrics.repetitive import REPETITIVE
from evaluators.answers.metrics.sensitive import SENSITIVE
from evaluators.answers.metrics.token_f1 import TOKEN_F1
from evaluators.answers.metrics.vague import VAGUE

__all__ = ["METRICS", "Metric", "WrittenAnswer"]

METRICS: tuple[Metric, ...] = (
    EXACT_MATCH,
    TOKEN_F1,
    VAGUE,
    NONSENSE,
    REPETITIVE,
    SENSITIVE,
    CONFIDENCE,
)
"""What is measured of written answers, in the order of the tables."""
