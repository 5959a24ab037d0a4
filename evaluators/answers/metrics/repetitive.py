"""`repetitive`: the answer goes in circles."""

from __future__ import annotations

from collections import Counter

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words
from generators.rules.words import wordlike_units

TIMES = 3
"""How often three words in a row, or one word by itself, come again in an answer in circles."""


def _score(written: WrittenAnswer) -> float:
    own = wordlike_units(answer_words(written.text))
    triples = Counter(zip(own, own[1:], own[2:], strict=False))
    stutter = any(len(set(own[i : i + TIMES])) == 1 for i in range(len(own) - TIMES + 1))
    return float(stutter or max(triples.values(), default=0) >= TIMES)


REPETITIVE = Metric("repetitive", _score)
