"""Words of an answer, as metrics compare them."""

from __future__ import annotations

from generators.rules.words import overlap_f1
from generators.rules.words import words as all_words

_ARTICLES = frozenset({"a", "an", "the"})


def answer_words(text: str) -> list[str]:
    """List the words and numbers of `text` in lower case, without punctuation or articles."""
    found = all_words(text)
    # an answer such as "A" is all article
    return [word for word in found if word not in _ARTICLES] or found


def comparable_form(text: str) -> str:
    """Return the words of `text` as one text: what is the same here differs in form alone."""
    return " ".join(answer_words(text))


def word_f1(first: str, second: str) -> float:
    """Compute the F1 of the words of two texts: 1 for the same words, 0 for none in common."""
    return overlap_f1(answer_words(first), answer_words(second))
