"""`nonsense`: the answer is empty, or not made of words."""

from __future__ import annotations

import unicodedata

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words

LETTERS = 0.6
"""Least share of letters, digits and spaces in an answer that makes sense."""
LONGEST = 40
"""Letters of the longest word that makes sense."""


def _score(written: WrittenAnswer) -> float:
    text = written.text.strip()
    own = answer_words(text)
    if not own:
        return 1.0
    plain = sum(c.isspace() or _is_of_a_word(c) for c in text)
    return float(plain / len(text) < LETTERS or max(map(len, own)) > LONGEST)


def _is_of_a_word(character: str) -> bool:
    """Whether it is a letter, a digit, a mark on one, or joins or directs them."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Cf"


NONSENSE = Metric("nonsense", _score)
