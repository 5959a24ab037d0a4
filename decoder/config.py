"""Settings of how activations enter the decoder, and of its adapter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.config import Config

Normalisation = Literal[
    "none", "length", "centre", "standardise", "wiener", "discriminant", "difference"
]
"""How activations are normalised before they are injected (decoder/normalisation.py)."""


class DecoderConfig(Config):
    """Injection and prompt of the decoder."""

    read_layer: int | None = Field(default=None, ge=-1)
    """Stored layer that the decoder reads; null where the store has just one, or where it reads
    several."""
    read_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Several stored layers that it reads, each named in its prompt; empty for `read_layer` alone.
    The first is the one that is asked where nothing else is said."""
    combine: Literal["sampled", "concatenated"] = "sampled"
    """Layers that are read of a row where there are several: `sampled` is one of them, drawn by
    seed in each epoch, and any can be asked later; `concatenated` is all of them, one run of
    placeholders after the other."""
    write_layer: int = Field(default=0, ge=0)
    """Decoder block at whose output the activations enter, at the placeholders."""
    injection: Literal["replace", "add"] = "replace"
    """`replace` puts the activation itself there (arXiv 2412.08686, section 3); `add` adds its
    direction, at the length of what is there (arXiv 2512.15674)."""
    normalisation: Normalisation = "none"
    """What is done to activations first: `none` leaves them as they are (the paper); `length`
    brings each to the mean length of what it replaces; `centre` takes off the mean training token
    before that, and `standardise` divides each feature by its deviation over training tokens as
    well. A few massive features hide the change of some percent that a hidden control makes.
    `wiener` then puts the best linear estimate of that change in the activation's place, learned
    from training rows whose visible text begins alike under several controls (crossed stimuli, or
    `train` in dump.swapped).
    `discriminant` does so with what differs between the controls' mean activations (as linear
    discriminants do), where what tells controls apart stands in the visible text itself
    (complete.neutral_system).
    `difference` takes off the activations of the same visible text without the control, then brings
    the rest to that length: an ablation, for masked views and train.activations `live`; such a
    decoder can be evaluated, and not asked or steered."""
    positions: Literal["target", "plain"] = "target"
    """`target`: each placeholder has the position that its activation had in the target's own
    sequence (the paper's rule); `plain`: the decoder's sequence is counted from 0."""
    masking: bool = True
    """Withhold the control's own tokens in every view but `control`."""
    tokens: str = Field(default="visible", pattern=r"^(visible|last:[1-9]\d*)$")
    """Tokens of a row that are read: `visible`, all that masking leaves, or `last:N`, the last N of
    these (`last:1` of rows of kind `relation` is the subject's last token)."""
    placeholder: str = "?"
    """Text of a placeholder; must be one token."""
    preamble: str = "I have read the assistant. Ask me."
    """The decoder's own turn between the placeholders and the question."""

    @property
    def last_tokens(self) -> int | None:
        """Most tokens of a row that are read, the last ones; None for all that are visible."""
        return None if self.tokens == "visible" else int(self.tokens.removeprefix("last:"))

    @model_validator(mode="after")
    def _layers(self) -> DecoderConfig:
        if len(set(self.read_layers)) < len(self.read_layers):
            raise ValueError(f"read_layers names a layer twice: {list(self.read_layers)}")
        if self.read_layers and self.read_layer is not None:
            raise ValueError(
                f"got read_layer {self.read_layer} and read_layers {list(self.read_layers)}, "
                "expected one of them"
            )
        return self


class LoraSettings(Config):
    """The LoRA adapter (peft)."""

    rank: int = Field(default=16, ge=1, le=8192)
    """Rank of each pair of matrices."""
    alpha: float = Field(default=32, gt=0)
    """Scale of the adapter is alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted; `all-linear` is all but the language head."""
