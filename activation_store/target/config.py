"""What decides the target's own replies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.config import Config


class CompleteConfig(Config):
    """How the target replies."""

    max_tokens: int = Field(default=48, ge=1)
    """Longest reply, in tokens."""
    unfinished: Literal["keep", "drop"] = "keep"
    """What happens to a reply that reaches `max_tokens`: `keep` flags it `unfinished`, `drop`
    counts and lists it."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    batch_rows: int = Field(default=16, ge=1)
    """Conversations that are answered together; the unit of resuming."""
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format in which the target runs."""
    seed: int = 0
    """Seed of sampling."""
