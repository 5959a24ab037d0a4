"""`sensitive`: the answer is another one where the activations are another control's."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, Written
from evaluators.answers.metrics.words import words


def _score(written: Written) -> float:
    return float(words(written.text) != words(written.against))


SENSITIVE = Metric("sensitive", _score)
