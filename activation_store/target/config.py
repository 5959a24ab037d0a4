"""Settings of the target: how conversations become its prompt, and how it replies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, field_validator

from activation_store.target.number_format import ComputeConfig
from core.config import Config

_RESERVED_ARGUMENTS = frozenset(
    (
        *("conversation", "messages", "tools", "documents", "chat_template", "tokenize", "padding"),
        *("add_generation_prompt", "continue_final_message", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    )
)
"""Arguments of transformers' `apply_chat_template` that are not the template's."""


class TemplateConfig(Config):
    """How the target's chat template writes a conversation."""

    template_args: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the target's chat template by name, such as `enable_thinking: false` or
    `date_string: 01 Jan 2025` (which is its default); they are part of what the target is."""
    system_role: Literal["own", "join"] = "own"
    """What happens to a system message that the chat template refuses or leaves out: `own` drops
    and counts the row, `join` writes its text, and an empty line, before the first user message."""

    @field_validator("template_args")
    @classmethod
    def _free(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(_RESERVED_ARGUMENTS & arguments.keys()):
            raise ValueError(f"{taken[0]!r} is set by this program; expected the template's own")
        return arguments


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
