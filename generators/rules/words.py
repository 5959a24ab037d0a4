"""Texts of any script are split into words in one way, for the rules here and for all metrics."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

_JOINERS = re.compile("[\u00ad\u200c\u200d\u2060\ufeff]")
"""Soft hyphens and joiners: they shape a word and are no part of its spelling."""
_HAN_RANGES = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SOUTH_EAST_ASIAN_RANGES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff"
HAN = re.compile(f"[{_HAN_RANGES}]")
"""Chinese characters and kana."""
UNSPACED = re.compile(f"[{_HAN_RANGES}{_SOUTH_EAST_ASIAN_RANGES}]")
"""Scripts written without spaces between words: those of `HAN`, Thai, Lao, Burmese, Khmer."""


def words(text: str) -> list[str]:
    """List the words of `text` in order, in lower case.

    A word is a run of letters, digits and the marks on them, with apostrophes inside. Scripts
    written without spaces give a word for each character with its marks, as is usual for token F1
    in Chinese.
    """
    plain = _JOINERS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _pattern().findall(plain.replace("’", "'").replace("ʼ", "'"))


def overlap_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Compute the F1 of two lists of words: 1 for the same words, 0 for none in common."""
    found, wanted = Counter(first), Counter(second)
    if not found or not wanted:
        return float(found == wanted)
    return 2 * (found & wanted).total() / (found.total() + wanted.total())


@cache
def _pattern() -> re.Pattern[str]:
    # Python's \w leaves marks out, and so would cut Hindi and Arabic words in pieces
    marks = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"
    ]
    mark = f"[{''.join(marks)}]"
    letter = rf"(?:(?![{_HAN_RANGES}{_SOUTH_EAST_ASIAN_RANGES}])[^\W_]{mark}*)"
    cluster = rf"[{_HAN_RANGES}{_SOUTH_EAST_ASIAN_RANGES}](?<=[^\W_]){mark}*"
    return re.compile(rf"{cluster}|{letter}+(?:'{letter}+)*")
