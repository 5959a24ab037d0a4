"""The metrics of every report."""

from __future__ import annotations

import unicodedata
from collections import Counter

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words, word_f1
from generators.rules.words import wordlike_units

SPECIFIC = 2
"""Words of its own that an answer needs not to be vague."""
LETTERS = 0.6
"""Least share of letters, digits and spaces in an answer that makes sense."""
LONGEST = 40
"""Letters of the longest word that makes sense."""
TIMES = 3
"""How often three words in a row, or one word by itself, come again in an answer in circles."""

# words that any answer about any assistant has
_COMMON_WORDS = """
i you he she it its they their them this that these those who whom what which how when where
and or but if then than as of in on at to from for with without by about into over not no yes
is are was were be been being am do does did has have had having will would can could may might
should shall must also very more most some any all many much other such own so too just only
assistant model ai language persona character role user users question questions answer answers
response responses respond responds responding act acts acting adopt adopts adopting speak
speaks speaking say says talk talks likely probably way manner style something someone thing
things person people specific certain various different particular
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def _is_exact(written: WrittenAnswer) -> float:
    return float(answer_words(written.text) == answer_words(written.gold))


def _is_vague(written: WrittenAnswer) -> float:
    own = set(answer_words(written.text)) - set(answer_words(written.question)) - _COMMON
    return float(len(own) < SPECIFIC)


def _is_nonsense(written: WrittenAnswer) -> float:
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


def _is_repetitive(written: WrittenAnswer) -> float:
    own = wordlike_units(answer_words(written.text))
    triples = Counter(zip(own, own[1:], own[2:], strict=False))
    stutter = any(len(set(own[i : i + TIMES])) == 1 for i in range(len(own) - TIMES + 1))
    return float(stutter or max(triples.values(), default=0) >= TIMES)


def _is_sensitive(written: WrittenAnswer) -> float:
    return float(answer_words(written.text) != answer_words(written.against))


def _is_extracted(written: WrittenAnswer) -> bool:
    return written.extracted


EXACT_MATCH = Metric("exact_match", _is_exact, _is_extracted)
"""The answer is the gold answer, word for word (extraction questions)."""
TOKEN_F1 = Metric("token_f1", lambda written: word_f1(written.text, written.gold), _is_extracted)
"""Words in common with the gold answer (extraction questions)."""
VAGUE = Metric("vague", _is_vague, lambda written: not written.extracted)
"""The answer says next to nothing that its question did not say already; not asked of extraction
questions, whose right answer may be a single word."""
NONSENSE = Metric("nonsense", _is_nonsense)
"""The answer is empty, or not made of words."""
REPETITIVE = Metric("repetitive", _is_repetitive)
"""The answer goes in circles."""
SENSITIVE = Metric("sensitive", _is_sensitive)
"""The answer is another one where the activations are another control's."""
CONFIDENCE = Metric("confidence", lambda written: written.log_probability)
"""Log-probability of the written answer, mean over its tokens, in nats."""
