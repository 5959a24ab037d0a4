"""Metrics of written answers, each a file of its own with one number an answer.

To add one, write the file and name it in `METRICS` (docs/evaluation.md shows one whole).
"""

from __future__ import annotations

from evaluators.metrics.base import Metric, Written
from evaluators.metrics.confidence import CONFIDENCE
from evaluators.metrics.exact_match import EXACT_MATCH
from evaluators.metrics.nonsense import NONSENSE
from evaluators.metrics.repetitive import REPETITIVE
from evaluators.metrics.sensitive import SENSITIVE
from evaluators.metrics.token_f1 import TOKEN_F1
from evaluators.metrics.vague import VAGUE

__all__ = ["METRICS", "Metric", "Written"]

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
