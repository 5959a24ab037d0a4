"""`sensitive`: the answer is another one where the activations are another control's."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words


def _score(written: WrittenAnswer) -> float:
    return float(answer_words(written.text) != answer_words(written.against))


SENSITIVE = Metric("sensitive", _score)
