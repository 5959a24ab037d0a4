"""Settings of steering by weights."""

from __future__ import annotations

from pydantic import Field

from core.config import Config
from decoder.config import LoraSettings


class WeightSteeringConfig(Config):
    """A LoRA adapter on the target, trained through the decoder."""

    lora: LoraSettings = LoraSettings(rank=8, alpha=16)
    """Shape of the adapter; it stands on the blocks up to the read layer alone."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Learning rate of AdamW, constant."""
    steps: int = Field(default=60, ge=1)
    """Most optimiser steps."""
    prompts_per_step: int = Field(default=4, ge=1)
    """Prompts of one step."""
    reply_tokens: int = Field(default=12, ge=0)
    """Tokens of the target's own, unsteered reply behind each prompt that are read with it, so that
    what is steered is also the state in which a reply goes on; 0 reads prompts alone."""
    kl_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the divergence from the unsteered target's next tokens in its replies about other
    matters (generators/seeds/everyday.yaml), in nats per token; 0 leaves it out."""
    evaluate_every: int = Field(default=10, ge=1)
    """Steps between two measurements of the loss on held-out prompts."""
    patience: int = Field(default=3, ge=1)
    """Measurements without a new lowest after which training ends; the lowest is kept."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are clipped."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the adapter's weights and of the order of prompts."""
