"""Settings of steering by weights."""

from __future__ import annotations

from pydantic import Field

from core.config import Config
from decoder.config import LoraSettings


class WeightSteeringConfig(Config):
    """A LoRA adapter on the target, trained through the decoder."""

    lora: LoraSettings = LoraSettings(rank=8, alpha=16)
    """Shape of the adapter; it covers only the blocks up to the read layer."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Constant learning rate of AdamW."""
    steps: int = Field(default=60, ge=1)
    """Most optimiser steps."""
    prompts_per_step: int = Field(default=4, ge=1)
    """Prompts per optimiser step."""
    reply_tokens: int = Field(default=12, ge=0, le=100_000)
    """Tokens of the target's own, unsteered reply that are read after each prompt, so that the
    state in which a reply continues is steered as well; 0 reads only prompts."""
    kl_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the divergence (nats per token) from the unsteered target's next tokens in replies
    about unrelated matters (generators/seeds/everyday.yaml); 0 for none."""
    evaluate_every: int = Field(default=10, ge=1)
    """Steps between two measurements of the loss on held-out prompts."""
    patience: int = Field(default=3, ge=1)
    """Measurements without a new lowest loss after which training stops; the adapter with the
    lowest is kept."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are clipped."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the adapter's weights and of the order of prompts."""
