"""Config of the rules that drop rows."""

from __future__ import annotations

from pydantic import Field

from core.config import Config


class FilterConfig(Config):
    """Which rows are dropped; each is kept aside with its reason."""

    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a kept row, a seed or a few-shot
    example at which a row is a near-duplicate."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Smallest share of distinct word triples in a text that is not repetitive."""
    copied_words: int = Field(default=3, ge=2)
    """Consecutive content words taken from a few-shot example at which a reply counts as copied."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control at which the stimulus gives the control away;
    one word is enough if it is in the label."""
    specific: bool = True
    """Whether answers that share no content word with their control are dropped."""
