"""`nonsense`: the answer is empty, or not made of words."""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer

LETTERS = 0.6
"""Least share of letters, digits and spaces in an answer that makes sense."""
LONGEST = 40
"""Letters of the longest word that makes sense."""


def _score(written: WrittenAnswer) -> float:
    text = written.text.strip()
    if not any(character.isalnum() for character in text):
        return 1.0
    plain = sum(character.isalnum() or character.isspace() for character in text)
    longest = max(len(word) for word in text.split())
    return float(plain / len(text) < LETTERS or longest > LONGEST)


NONSENSE = Metric("nonsense", _score)
