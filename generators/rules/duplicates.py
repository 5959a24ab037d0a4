"""Near-duplicates are texts that are nearly one seen before."""

from __future__ import annotations

from typing import Any

from generators.llm.reply_json import Rejection
from generators.rules.text import words


class Duplicates:
    """Texts seen so far, and whether another is nearly one of them (MinHash, LSH)."""

    _PERMUTATIONS = 128
    _RUN = 5  # characters

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=self._PERMUTATIONS)
        self._seen: list[tuple[str, Any, str | None]] = []

    def add(self, text: str, owner: str | None = None) -> None:
        """Remember `text`, of the control `owner`."""
        sketch = self._sketch(text)
        self._index.insert(str(len(self._seen)), sketch)
        self._seen.append((text, sketch, owner))

    def find(self, text: str, but_of: str | None = None) -> Rejection | None:
        """Detect a near-duplicate of a text added before, other than those of `but_of`."""
        sketch = self._sketch(text)
        # the index alone is off by some hundredths; the sketches decide
        for place in sorted(int(name) for name in self._index.query(sketch)):
            known, other, owner = self._seen[place]
            if owner is not None and owner == but_of:
                continue
            if (near := sketch.jaccard(other)) >= self._threshold:
                return Rejection("near_duplicate", f"{near:.2f} alike: {known[:80]}")
        return None

    def _sketch(self, text: str) -> Any:
        from datasketch import MinHash

        plain = " ".join(words(text))
        sketch = MinHash(num_perm=self._PERMUTATIONS, seed=1)
        last = max(1, len(plain) - self._RUN + 1)
        sketch.update_batch([plain[i : i + self._RUN].encode() for i in range(last)])
        return sketch
