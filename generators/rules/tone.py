"""The tone of a text: its sentiment by a published lexicon, its register by marks of our own."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from generators.rules.words import words

SENTIMENTS: Mapping[str, int] = {"positive": 1, "negative": -1}
"""Sentiments that a text can be checked for, with their sign."""
REGISTERS: Mapping[str, int] = {"formal": 1, "informal": -1}
"""Registers that a text can be checked for, with their sign."""
CLEAR_SENTIMENT = 0.05
"""Score from which VADER's authors take a sentiment as not neutral."""

_CONTRACTION = re.compile(r"\b\w+['’](?:s|re|ve|ll|d|m|t)\b", re.IGNORECASE)
_FORMAL_WORDS = frozenset(
    words(
        """
        therefore furthermore moreover however consequently regarding additionally accordingly shall
        sincerely kindly respectfully dear please assistance inquire ensure require provide obtain
        advise recommend subsequently hence thus nevertheless pertaining appropriate upon whom sir
        madam cordially grateful esteemed endeavor endeavour assist inform pleased appreciate
        """
    )
)
_INFORMAL_WORDS = frozenset(
    words(
        """
        hey hi yeah yep nope okay ok gonna wanna gotta kinda sorta cool awesome stuff guys guy lol
        super totally yay wow oh huh dude pal buddy folks bunch lots fun chill bye thanks cheers
        kid kids mom dad cuz ya yup oops ugh
        """
    )
)


@functools.cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment_of(text: str) -> float:
    """Score sentiment from -1 to 1: VADER's compound score (Hutto & Gilbert 2014)."""
    return float(_vader().polarity_scores(text)["compound"])


def formality_of(text: str) -> float:
    """Score the register: formal less informal marks, by word.

    Marks are words of two short lists, contractions and exclamation marks.
    """
    said = words(text)
    formal = sum(word in _FORMAL_WORDS for word in said)
    informal = sum(word in _INFORMAL_WORDS for word in said)
    informal += len(_CONTRACTION.findall(text)) + text.count("!")
    return (formal - informal) / max(1, len(said))
