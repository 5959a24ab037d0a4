"""Settings of steering by activations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.config import Config

NewTokens = Literal["none", "mean", "gradient"]
"""What is done to the activations of tokens that the target writes."""


class ActivationSteeringConfig(Config):
    """How activations are moved down the gradient of the decoder's answer loss."""

    step_size: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Length of one step: root mean square over a prompt's tokens, as a share of the median length
    of their activations. Lengths are measured in the decoder's units: where it standardises, in
    standard deviations of each feature from its mean."""
    steps: int = Field(default=4, ge=1)
    """Steps at a prompt; each takes a new gradient."""
    vector_steps: int = Field(default=8, ge=1)
    """Steps of a vector, each along the gradient averaged over all tokens of all prompts."""
    norm_limit: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Longest shift of a token's activation, as a share of that activation's length."""
    smoothing: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Noise on copies of a prompt's activations over which the gradient is averaged: root mean
    square as a share of the activation's (Smilkov et al. 2017, "SmoothGrad"). It reduces what only
    the decoder reacts to; 0 uses the plain gradient."""
    copies: int = Field(default=8, ge=2, le=1000)
    """Copies for `smoothing`, one of them without noise; each costs a decoder pass."""
    last_tokens: int | None = Field(default=None, ge=1)
    """Number of a prompt's last tokens that are shifted; null shifts all that the decoder reads."""
    prompt_tokens: bool = True
    """Whether the prompt's own activations are shifted."""
    new_tokens: NewTokens = "mean"
    """What is done to tokens that the target writes: `none`; `mean` adds the mean shift of the
    prompt's tokens; `gradient` takes a new gradient for each, at a decoder pass per step and
    token."""
