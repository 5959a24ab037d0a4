"""`token_f1`: words in common with the gold answer (extraction questions)."""

from __future__ import annotations

from collections import Counter

from evaluators.metrics.base import Metric, Written
from evaluators.metrics.words import words


def _score(written: Written) -> float:
    found, gold = Counter(words(written.text)), Counter(words(written.gold))
    if not found or not gold:
        return float(found == gold)
    return 2 * (found & gold).total() / (found.total() + gold.total())


TOKEN_F1 = Metric("token_f1", _score, lambda written: written.extracted)
