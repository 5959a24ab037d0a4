"""Config of the rules that drop rows."""

from __future__ import annotations

from pydantic import Field

from core.config import Config


class FilterConfig(Config):
    """Which rows are dropped; every dropped row is kept aside with its reason."""

    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a kept row, a seed or a few-shot
    example from which a row is a near-duplicate."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Least share of distinct runs of three words; a text below it repeats itself."""
    copied_words: int = Field(default=3, ge=2)
    """Content words in a row that, taken over from a few-shot example, make a copied reply."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control from which the stimulus gives the control away;
    one is enough where it stands in the label."""
    specific: bool = True
    """Drop answers that share no content word with their control."""
