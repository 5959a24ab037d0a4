"""Settings of the target's own replies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from activation_store.target.number_format import ComputeConfig


class CompleteConfig(ComputeConfig):
    """How the target replies. Its own generation_config.json sets nothing."""

    max_tokens: int = Field(default=48, ge=1)
    """Longest reply, in tokens, a thought included."""
    unfinished: Literal["keep", "drop"] = "keep"
    """What happens to a reply that reaches `max_tokens`: `keep` flags it `unfinished`, `drop`
    counts and lists it. One that is cut within its thought is dropped in any case."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of the probability that is sampled from, the likeliest tokens first; 1 is all."""
    top_k: int = Field(default=0, ge=0)
    """Number of tokens that are sampled from, the likeliest first; 0 is all."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """What the scores of tokens that stand in the prompt or the reply are divided by; 1 is none."""
    batch_rows: int = Field(default=16, ge=1)
    """Conversations that are answered together; the unit of resuming."""
    seed: int = 0
    """Seed of sampling."""
