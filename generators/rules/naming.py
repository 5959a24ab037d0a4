"""Names in texts: is one of several names in a text, and is it all that the text says?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from generators.rules.words import normalize, words

_ACCENT = re.compile("[\u0300-\u036f]")
_CLAUSE_END = re.compile(r"[\n.,;:!?。、，；：！？؟،؛।]")
_PLURALS = ("s", "es")


def fold(text: str) -> list[str]:
    """List the words of a text in lower case, without accents and punctuation.

    Scripts written without spaces, and Korean, give a word for each character; the marks of other
    scripts are no accents, and stay.

    >>> fold("Boötes, the herdsman")
    ['bootes', 'the', 'herdsman']
    """
    apart = unicodedata.normalize("NFKD", normalize(text).replace("'", " "))
    return words(unicodedata.normalize("NFC", _ACCENT.sub("", apart)))


def names_any(answer: str, names: Iterable[str]) -> bool:
    """Tell whether an answer has one of `names` in it, as whole words; a plural counts.

    >>> names_any("It is paid in dollars.", ["Dollar"]), names_any("Yentl", ["Yen"])
    (True, False)
    """
    said = fold(answer)
    return any(
        _stands_in(said, own) if (own := fold(name)) else name.strip() in answer
        for name in names
        if name.strip()
    )


def is_exactly(answer: str, names: Iterable[str]) -> bool:
    """Tell whether the first clause of an answer is one of `names` and nothing else.

    >>> is_exactly("Dollar. It is paid", ["Dollar"]), is_exactly("US Dollar", ["Dollar"])
    (True, False)
    """
    said = fold(_CLAUSE_END.split(answer.strip(), maxsplit=1)[0])
    return any(said == fold(name) for name in names)


def _stands_in(said: Sequence[str], name: Sequence[str]) -> bool:
    n = len(name)
    ends = (name[-1], *(name[-1] + plural for plural in _PLURALS))
    return any(
        list(said[i : i + n - 1]) == list(name[:-1]) and said[i + n - 1] in ends
        for i in range(len(said) - n + 1)
    )
