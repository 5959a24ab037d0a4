"""`vague`: the answer says next to nothing that its question did not say already.

Not asked of extraction questions, whose right answer may be a single word.
"""

from __future__ import annotations

from evaluators.answers.metrics.base import Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words

SPECIFIC = 2
"""Words of its own that an answer needs not to be vague."""

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


def _score(written: WrittenAnswer) -> float:
    own = set(answer_words(written.text)) - set(answer_words(written.question)) - _COMMON
    return float(len(own) < SPECIFIC)


VAGUE = Metric("vague", _score, lambda written: not written.extracted)
