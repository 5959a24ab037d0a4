"""Texts of any script are split into words in one way, for the rules here and for all metrics."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻʹʾʿ´`′＇ꞌ", "'"))
_UNSEEN = re.compile(
    # soft hyphens, joiners, marks of direction
    "[\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    # Hebrew points and accents; Arabic vowels and the stroke that stretches a word
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)
"""What shapes or voices a word and may be left out of its spelling."""
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_EAST_ASIAN_RANGES = (
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua48f\uf900-\ufaff\U00020000-\U0003ffff"
)
_HANGUL_RANGES = "\u1100-\u11ff\uac00-\ud7ff"
_SOUTH_EAST_ASIAN_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f"
    "\ua980-\ua9ff\uaa60-\uaadf"
)
_UNSPACED_RANGES = f"{_EAST_ASIAN_RANGES}{_HANGUL_RANGES}{_SOUTH_EAST_ASIAN_RANGES}"
_EAST_ASIAN = re.compile(f"[{_EAST_ASIAN_RANGES}]")
_HANGUL = re.compile(f"[{_HANGUL_RANGES}]")
UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")
"""Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer, Javanese),
and Korean, whose particles and endings stand at the words they belong to."""


def normalize(text: str) -> str:
    """Bring spellings of the same text into one: width, case, apostrophes, digits, optional marks.

    >>> normalize("Don‘t ＷＡＩＴ ١٢")
    "don't wait 12"
    """
    if text.isascii():
        return text.replace("`", "'").casefold()
    plain = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    # a dotted capital I is an i and a dot in lower case
    plain = unicodedata.normalize("NFKC", plain.replace("i\u0307", "i"))
    return _OTHER_DIGIT.sub(
        lambda digit: str(unicodedata.decimal(digit[0])), _UNSEEN.sub("", plain)
    )


def normalize_line(text: str) -> str:
    """Bring `text` into one spelling, every run of white space as one blank."""
    return " ".join(normalize(text).split())


def words(text: str) -> list[str]:
    """List the words of `text` in order, in lower case.

    A word is a run of letters, digits and the marks on them, with apostrophes inside. Scripts
    written without spaces, and Korean, give a word for each character with its marks, as is usual
    for token F1 in Chinese and Korean.
    """
    return _pattern().findall(normalize(text))


def join_characters(
    found: Sequence[str], *, east_asian: int, hangul: int, others: int
) -> list[str]:
    """Join neighbouring characters of unspaced scripts into overlapping runs; keep other words.

    Args:
        found: words of a text.
        east_asian: characters of a run in Chinese and Japanese.
        hangul: in Korean.
        others: in the scripts of South East Asia, whose syllables take several characters.
    """
    lengths = {_EAST_ASIAN: east_asian, _HANGUL: hangul, UNSPACED: others}
    joined: list[str] = []
    for script, run in itertools.groupby(found, key=_script):
        own = list(run)
        if script is not None:
            length = lengths[script]
            own = ["".join(own[i : i + length]) for i in range(max(1, len(own) - length + 1))]
        joined += own
    return joined


def wordlike_units(found: Sequence[str]) -> list[str]:
    """List what repeats where words go in circles: the words, and runs of characters as long.

    Three units in a row take about the room of three words in any script.
    """
    return join_characters(found, east_asian=4, hangul=6, others=10)


def _script(word: str) -> re.Pattern[str] | None:
    """Return the unspaced script that a word is of; None for words between spaces."""
    scripts = (_EAST_ASIAN, _HANGUL, UNSPACED)
    return next((script for script in scripts if script.match(word)), None)


def overlap_f1(first: Sequence[str], second: Sequence[str]) -> float:
    """Compute the F1 of two lists of words: 1 for the same words, 0 for none in common."""
    found, wanted = Counter(first), Counter(second)
    if not found or not wanted:
        return float(found == wanted)
    return 2 * (found & wanted).total() / (found.total() + wanted.total())


@cache
def _pattern() -> re.Pattern[str]:
    # Python's \w leaves marks out, and so would cut Hindi and Tamil words in pieces
    marks = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"
    ]
    mark = f"[{''.join(marks)}]"
    letter = rf"(?:(?![{_UNSPACED_RANGES}])[^\W_]{mark}*)"
    cluster = rf"[{_UNSPACED_RANGES}](?<=[^\W_]){mark}*"
    return re.compile(rf"{cluster}|{letter}+(?:'{letter}+)*")
