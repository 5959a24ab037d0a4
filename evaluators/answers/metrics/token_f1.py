"""`token_f1`: words in common with the gold answer (extraction questions)."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words
from generators.rules.words import overlap_f1


def word_f1(first: str, second: str) -> float:
    """Compute the F1 of the words of two texts: 1 for the same words, 0 for none in common."""
    return overlap_f1(answer_words(first), answer_words(second))


def _score(written: WrittenAnswer) -> float:
    return word_f1(written.text, written.gold)


TOKEN_F1 = Metric("token_f1", _score, lambda written: written.extracted)
