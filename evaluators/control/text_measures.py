"""Measures of written replies that code takes: diversity, repetition, plain facts."""

from __future__ import annotations

from collections.abc import Sequence

from generators.rules.words import words

_REPEATED = 3
"""Words of a sequence that counts as repeated."""


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Compute distinct-n: the share of different n-grams of words among all of `texts`.

    (Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models".)
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str) -> float:
    """Compute the share of sequences of three words that stood earlier in the same text."""
    grams = _grams(text, _REPEATED)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def holds_fact(text: str, answers: Sequence[str]) -> bool:
    """Tell whether a reply contains one of `answers` as whole words, whatever their case."""
    said = " ".join(words(text))
    return any(f" {' '.join(words(answer))} " in f" {said} " for answer in answers)


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    said = words(text)
    return [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
