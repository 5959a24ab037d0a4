"""Settings of the target's own replies."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from activation_store.target.number_format import ComputeConfig
from generators.llm.endpoint.config import EndpointConfig


class CompleteConfig(ComputeConfig):
    """How the target replies. Its own generation_config.json sets nothing."""

    max_tokens: int = Field(default=48, ge=1, le=100_000)
    """Longest reply, in tokens, a thought included."""
    unfinished: Literal["keep", "drop"] = "keep"
    """What happens to a reply that reaches `max_tokens`: `keep` flags it `unfinished`, `drop`
    counts and lists it. One that is cut within its thought is dropped in any case."""
    disobedient: Literal["keep", "drop"] = "keep"
    """What happens to a reply that code finds against its control (generators/rules/obedience.py):
    `drop` counts and lists it."""
    attempts: int = Field(default=1, ge=1, le=1000)
    """Most replies drawn for a conversation whose control code can check; the first one that obeys
    is kept, else the last. The first reply is drawn as set here, each further one at `temperature`,
    or at 1 if that is 0."""
    neutral_system: str | None = Field(default=None, min_length=1)
    """System prompt that takes the control's place in the rows with replies, once they are written.
    Such rows hide nothing: they hold what replies under a control are like, for a decoder that is
    to steer replies. Null keeps the control."""
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
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of sampling."""
    endpoint: EndpointConfig | None = None
    """Server of the target that writes the replies, such as vLLM's: it has to continue token ids at
    `/completions`. Null has the target reply here."""
    check_rows: int = Field(default=8, ge=0)
    """Conversations that the endpoint answers greedily before all others, to be compared with the
    target, which is loaded for it; 0 compares none."""
    min_agreement: float = Field(default=0.9, ge=0, le=1)
    """Share of the tokens of these replies that the target itself has to choose too."""

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
