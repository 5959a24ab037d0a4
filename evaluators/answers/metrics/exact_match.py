"""`exact_match`: the answer is the gold answer, word for word (extraction questions)."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words


def _score(written: WrittenAnswer) -> float:
    return float(answer_words(written.text) == answer_words(written.gold))


EXACT_MATCH = Metric("exact_match", _score, lambda written: written.extracted)
