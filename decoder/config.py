"""How activations enter the decoder, and the shape of its adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from generators.config import Config


class DecoderConfig(Config):
    """Injection and prompt of the decoder."""

    read_layer: int | None = Field(default=None, ge=-1)
    """Stored layer that the decoder reads; null where the store has just one."""
    write_layer: int = Field(default=0, ge=0)
    """Decoder block at whose output the activations enter, at the placeholders."""
    injection: Literal["replace", "add"] = "replace"
    """`replace` puts the activation itself there (arXiv 2412.08686, section 3); `add` adds its
    direction, at the length of what is there (arXiv 2512.15674)."""
    positions: Literal["target", "plain"] = "target"
    """`target`: each placeholder has the position that its activation had in the target's own
    sequence (the paper's rule); `plain`: the decoder's sequence is counted from 0."""
    masking: bool = True
    """Withhold the control's own tokens in every view but `control`."""
    placeholder: str = "?"
    """Text of a placeholder; must be one token."""
    preamble: str = "I have read the assistant. Ask me."
    """The decoder's own turn between the placeholders and the question."""


class LoraSettings(Config):
    """The LoRA adapter (peft)."""

    rank: int = Field(default=16, ge=1)
    """Rank of each pair of matrices."""
    alpha: float = Field(default=32, gt=0)
    """Scale of the adapter is alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted; `all-linear` is all but the language head."""
