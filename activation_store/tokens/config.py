"""Settings of how conversations become the target's prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, field_validator

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
    `date_string: 01 Jan 2025` (the default); they are part of the target's identity."""
    system_role: Literal["own", "join"] = "own"
    """What happens to a system message that the chat template refuses or omits: `own` drops and
    counts the row; `join` puts its text and an empty line before the first user message."""

    @field_validator("template_args")
    @classmethod
    def _free(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(_RESERVED_ARGUMENTS & arguments.keys()):
            raise ValueError(f"{taken[0]!r} is set by this program; expected the template's own")
        return arguments
