"""Settings of how activations enter the decoder, and of its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from activation_store.layout.config import Layer
from core.config import Config
from core.errors import ConfigError

if TYPE_CHECKING:
    from activation_store.target.load import Shape

Normalisation = Literal[
    "none", "length", "centre", "standardise", "wiener", "discriminant", "difference"
]
"""How activations are normalised before they are injected (decoder/normalisation.py)."""


class DecoderConfig(Config):
    """Injection and prompt of the decoder."""

    read_layer: Layer | None = None
    """Stored layer that the decoder reads, named as in dump.layers; null if the store has only one,
    or with `read_layers`."""
    read_layers: tuple[Layer, ...] = ()
    """Several stored layers that the decoder reads, each named in its prompt; empty for
    `read_layer` alone. The first is asked by default."""
    combine: Literal["sampled", "concatenated"] = "sampled"
    """How several layers are read: `sampled` reads one of them per row and epoch, drawn by seed,
    and any can be asked later; `concatenated` reads all of them, one run of placeholders after the
    other."""
    write_layer: int = Field(default=0, ge=0)
    """Decoder block at whose output the activations are injected at the placeholders."""
    injection: Literal["replace", "add"] = "replace"
    """`replace` puts the activation in place of the placeholder's state (arXiv 2412.08686, section
    3); `add` adds its direction, scaled to the norm of that state (arXiv 2512.15674)."""
    normalisation: Normalisation = "none"
    """What is done to activations before injection (docs/training.md). If it is not set, it is
    `standardise` where a masked view is trained on, else `none`. `none` leaves them unchanged (the
    paper); `length` scales each to the mean norm of what it replaces; `centre` first subtracts
    the mean training token; `standardise` also divides each feature by its standard deviation.
    `wiener` replaces the activation by the best linear estimate of what a control changed in it,
    learned from visible text that occurs under several controls (crossed stimuli, or `train` in
    dump.swapped). `discriminant` is the same estimate for rows that hide nothing
    (complete.neutral_system), from the differences between the controls' mean activations.
    `difference` subtracts the activations of the same visible text without the control: an ablation
    for masked views and train.activations `live`, whose decoder can be evaluated but not asked or
    steered with."""
    positions: Literal["target", "plain"] = "target"
    """Position ids of placeholders: `target` uses the position of each activation in the target's
    own sequence (the paper); `plain` counts the decoder's sequence from 0."""
    masking: bool = True
    """Whether the control's own tokens are withheld in every view except `control`."""
    tokens: str = Field(default="visible", pattern=r"^(visible|last:[1-9]\d*)$")
    """Tokens of a row that are read: `visible` is all that masking leaves; `last:N` is the last N
    of these (`last:1` for rows of kind `relation`: the subject's last token)."""
    placeholder: str = "?"
    """Text of a placeholder; it must be one token."""
    preamble: str = "I have read the assistant. Ask me."
    """Fixed decoder turn between the placeholders and the question."""

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

    def with_block_numbers(self, shape: Shape) -> DecoderConfig:
        """Return these settings with each read layer as the number of a block of the target.

        Raises:
            ModelError: the target has no such block.
            ConfigError: two of the read layers are one block.
        """
        field = "train.decoder.read_layer"
        read = None if self.read_layer is None else shape.layer(self.read_layer, field)
        several = tuple(shape.layer(layer, f"{field}s") for layer in self.read_layers)
        if len(set(several)) < len(several):
            raise ConfigError(
                f"{field}s: {list(self.read_layers)} names a block twice ({shape.n_blocks} blocks)."
            )
        return self.model_copy(update={"read_layer": read, "read_layers": several})


class LoraSettings(Config):
    """The LoRA adapter (peft)."""

    rank: int = Field(default=16, ge=1, le=8192)
    """Rank of each pair of matrices."""
    alpha: float = Field(default=32, gt=0)
    """Scaling: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability before the adapter."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that are adapted; `all-linear` is all except the language model
    head."""
