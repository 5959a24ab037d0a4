"""Agreement of two judging passes over the same items: their share, and Cohen's kappa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from core.documents.document import Document
from core.text.wording import number, share


class Agreement(Document):
    """Agreement of two judging passes: share, and Cohen's kappa.

    Attributes:
        n: items on which both gave a verdict.
        raw: share of these with the same verdict; None where there are none.
        kappa: Cohen's kappa: 1 for full agreement, 0 for no more than the two passes' own shares
            of verdicts would give by chance. None where chance alone would give full agreement.
    """

    n: int
    raw: float | None
    kappa: float | None

    def __str__(self) -> str:
        """Format as `90 % of 12 (κ 0.80)`."""
        kappa = "" if self.kappa is None else f" (κ {number(self.kappa)})"
        return f"{share(self.raw)} of {self.n}{kappa}"


def agreement(first: Sequence[str | None], second: Sequence[str | None]) -> Agreement:
    """Measure the agreement of two passes over the same items (kappa: Cohen 1960).

    Raises:
        ValueError: the passes differ in length.
    """
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not both:
        return Agreement(n=0, raw=None, kappa=None)
    raw = sum(a == b for a, b in both) / len(both)
    ours, theirs = Counter(a for a, _ in both), Counter(b for _, b in both)
    by_chance = sum(ours[verdict] * theirs[verdict] for verdict in ours) / len(both) ** 2
    kappa = None if by_chance == 1 else (raw - by_chance) / (1 - by_chance)
    return Agreement(n=len(both), raw=raw, kappa=kappa)
