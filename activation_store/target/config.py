"""Settings of the target's own replies."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from activation_store.target.number_format import ComputeConfig
from generators.llm.endpoint.config import EndpointConfig

_LEAST_TEMPERATURE = 1e-3
"""Scores divided by a smaller one are no longer finite."""


class CompleteConfig(ComputeConfig):
    """How the target replies; its generation_config.json is ignored."""

    max_tokens: int = Field(default=48, ge=1, le=100_000)
    """Longest reply in tokens, thinking included."""
    unfinished: Literal["keep", "drop"] = "keep"
    """What happens to a reply that reaches `max_tokens`: `keep` flags it `unfinished`; `drop`
    leaves it out, counts and lists it. A reply cut within its thinking is always dropped."""
    disobedient: Literal["keep", "drop"] = "keep"
    """What happens to a reply that does not obey its control by the code check
    (generators/rules/obedience.py): `keep` keeps it; `drop` leaves it out, counts and lists it."""
    attempts: int = Field(default=1, ge=1, le=1000)
    """Most replies drawn for a conversation whose control code can check. The first reply that
    obeys is kept, otherwise the last. Replies after the first are sampled at `temperature`, or at 1
    if that is 0."""
    neutral_system: str | None = Field(default=None, min_length=1)
    """System prompt that replaces the control in the rows once replies are written. Such rows hide
    nothing: they contain what replies under a control are like, for a decoder that is to steer.
    Null keeps the control."""
    temperature: float = Field(default=0.0, ge=0, le=100)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass of the likeliest tokens that are sampled from; 1 is all."""
    top_k: int = Field(default=0, ge=0)
    """Number of the likeliest tokens that are sampled from; 0 is all."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    """Divisor of the scores of tokens that already occur in the prompt or the reply; 1 is none."""
    batch_rows: int = Field(default=16, ge=1)
    """Conversations that are answered in one batch; the unit of resuming."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of sampling."""
    endpoint: EndpointConfig | None = None
    """Server of the target that writes the replies, such as vLLM; it must continue token ids at
    `/completions`. Null runs the target here."""
    check_rows: int = Field(default=8, ge=0)
    """Conversations that the endpoint first answers greedily, to compare it with the target, which
    is loaded for this check; 0 skips the check."""
    min_agreement: float = Field(default=0.9, ge=0, le=1)
    """Smallest share of the tokens of these replies that the target itself must also choose."""

    @field_validator("temperature")
    @classmethod
    def _can_be_divided_by(cls, temperature: float) -> float:
        if 0 < temperature < _LEAST_TEMPERATURE:
            raise ValueError(f"got {temperature}, expected 0 or at least {_LEAST_TEMPERATURE}")
        return temperature

    @field_validator("endpoint")
    @classmethod
    def _continues_tokens(cls, endpoint: EndpointConfig | None) -> EndpointConfig | None:
        plain = EndpointConfig()
        for name in ("mode", "thinking_tokens", "reasoning_effort"):
            if endpoint is not None and getattr(endpoint, name) != getattr(plain, name):
                raise ValueError(
                    f"{name} is not for replies of the target; leave it out"
                    + (", and raise complete.max_tokens" if name == "thinking_tokens" else "")
                )
        return endpoint

    @model_validator(mode="after")
    def _attempts_are_made_here(self) -> Self:
        if self.attempts > 1 and self.endpoint is not None:
            raise ValueError(
                f"attempts: got {self.attempts} with an endpoint, which is asked once; "
                "expected 1, or leave the endpoint out"
            )
        return self
