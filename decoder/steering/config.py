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
    """Length of one step: root mean square over the tokens of a prompt, as a share of the median
    length of their activations. Lengths are measured as the decoder reads activations: where it
    standardises, in deviations of each feature from its mean."""
    steps: int = Field(default=4, ge=1)
    """Steps at a prompt; the gradient is taken anew at each."""
    vector_steps: int = Field(default=8, ge=1)
    """Steps of a vector, each along the gradient averaged over all tokens of all prompts."""
    norm_limit: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    """Longest shift of a token's activation, as a share of the activation's own length."""
    smoothing: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Noise on the copies of a prompt's activations over which the gradient is averaged, root mean
    square as a share of the activation's own; 0 takes the gradient as it is. An average follows
    less what only the decoder sees in the activations (Smilkov et al. 2017, "SmoothGrad")."""
    copies: int = Field(default=8, ge=2)
    """Copies for `smoothing`, one of them without noise; each costs a pass of the decoder."""
    last_tokens: int | None = Field(default=None, ge=1)
    """Only so many of a prompt's last tokens are shifted, which decide how a reply begins; null
    for all that the decoder reads."""
    prompt_tokens: bool = True
    """Whether the prompt's own activations are shifted."""
    new_tokens: NewTokens = "mean"
    """What is done to tokens that the target writes: `none`; `mean` adds the mean shift of the
    prompt's tokens to each; `gradient` takes the gradient anew for each, which costs a pass of the
    decoder a step and token."""
