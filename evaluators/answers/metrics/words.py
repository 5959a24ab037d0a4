"""Words of an answer, as metrics compare them."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})


def words(text: str) -> list[str]:
    """Split a text into words of any script, in lower case, without punctuation or articles."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    found = re.findall(r"\w+(?:'\w+)*", plain)
    # an answer such as "A" is all article
    return [word for word in found if word not in _ARTICLES] or found
