"""Near-duplicates are texts that are nearly one seen before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from generators.llm.chat.reply_json import Rejection
from generators.rules.words import words

_PERMUTATIONS = 128
_RUN = 5
"""Characters of a shingle."""
_FOUND = 0.995
"""Least chance that the index finds a text whose similarity is the threshold."""


class Duplicates:
    """Texts seen so far, and whether another is nearly one of them.

    An LSH index of MinHash sketches proposes candidates; the exact Jaccard similarity of the
    shingles (runs of 5 characters) decides. The index is looser than the threshold, because one
    at the threshold misses half of the pairs that lie on it.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        """Begin with `texts` as seen."""
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))
        self._seen: list[tuple[str, str | None]] = []
        for text in texts:
            self.add(text)

    def add(self, text: str, owner: str | None = None) -> None:
        """Remember `text`, of the control `owner`."""
        self._index.insert(len(self._seen), _sketch(_shingles(text)))
        self._seen.append((text, owner))

    def find(self, text: str, but_of: str | None = None) -> Rejection | None:
        """Detect a near-duplicate of a text added before, other than those of `but_of`."""
        own = _shingles(text)
        for place in sorted(self._index.query(_sketch(own))):
            known, owner = self._seen[place]
            if owner is not None and owner == but_of:
                continue
            theirs = _shingles(known)
            if (near := len(own & theirs) / len(own | theirs)) >= self._threshold:
                return Rejection("near_duplicate", f"{near:.2f} alike: {known[:80]}")
        return None


def _bands(threshold: float) -> tuple[int, int]:
    """Choose bands and rows of the index: the most rows that still find a pair at the threshold."""
    rows = 1
    while 1 - (1 - threshold ** (rows + 1)) ** (_PERMUTATIONS // (rows + 1)) >= _FOUND:
        rows += 1
        if rows == _PERMUTATIONS:
            break
    return _PERMUTATIONS // rows, rows


def _shingles(text: str) -> frozenset[str]:
    plain = " ".join(words(text))
    last = max(1, len(plain) - _RUN + 1)
    return frozenset(plain[i : i + _RUN] for i in range(last))


def _sketch(shingles: frozenset[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    sketch.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return sketch
