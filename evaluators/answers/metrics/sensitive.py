"""`sensitive`: the answer is another one where the activations are another control's."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import words


def _score(written: WrittenAnswer) -> float:
    return float(words(written.text) != words(written.against))


SENSITIVE = Metric("sensitive", _score)
