"""Settings that decide a trained decoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.config import Config
from core.records.tables import KIND_NAMES, SOURCES, VIEWS, View
from decoder.config import DecoderConfig, LoraSettings

__all__ = ["LOG_FILE", "DecoderConfig", "LoraSettings", "TrainConfig", "Variant"]

Variant = Literal["own", "prior", "visible_text", "text"]
"""Input that a decoder gets of a row while it is trained (trainers/data/decoder_inputs.py)."""
LOG_FILE = "log.jsonl"
"""Beside a decoder: its training and validation losses, a line a step that has one."""


class TrainConfig(Config):
    """The decoder, its data and its optimisation."""

    decoder: DecoderConfig = DecoderConfig()
    """How activations enter the decoder."""
    lora: LoraSettings = LoraSettings()
    """The adapter that is trained."""
    activations: Literal["store", "live"] = "store"
    """Where activations come from: `store` is the step dump's; `live` runs the target (the
    decoder's base, its adapter off) at every read, and the experiment has no dump."""
    views: tuple[View, ...] = VIEWS
    """Views whose rows are trained on."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most training rows, drawn by seed; null for all."""
    questions_per_row: int | None = Field(default=None, ge=1)
    """Most questions of a training row, drawn by seed; null for all."""
    mixture: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Weight of a view, a kind (persona, profile, context, ...) or a source (import, generator)
    among the rows that `max_rows` leaves: sources are interleaved, within each its kinds, within
    each its views; 1 where it is not named, and none of its rows at 0."""
    rows_per_batch: int = Field(default=8, ge=1)
    """Rows (activation prefixes, each with its questions) of one batch; where several processes
    train together, of all of them."""
    contrastive: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of a term by which each answer must be likelier given the row's own activations than
    given those of its visible text under another control (trainers/data/contrast.py); 0 leaves it
    out. Needs `train` in dump.swapped, and costs up to another forward pass of each masked row."""
    micro_batch_tokens: int = Field(default=1024, ge=1)
    """Most tokens of a micro-batch, which goes through the decoder at once; a larger batch is split
    into several, which bounds memory and changes no result beyond rounding: it is no part of what
    is cached. A row alone may have more."""
    accumulation: int = Field(default=1, ge=1)
    """Batches summed into one optimiser step."""
    epochs: float = Field(default=1.0, gt=0)
    """Epochs over the training rows, the last batch of each as short as it comes; ignored where
    `max_steps` is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps in all; null takes `epochs`."""
    noise: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Gaussian noise on the injected activations while training, root mean square as a share of
    their length. A decoder that is to steer wants some: it then reads the directions in which
    activations differ widely, and its gradient follows them, not whatever else tells them apart."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises; it then falls as a cosine, step by step."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the decoder's weights and arithmetic, `auto` as dump.compute_dtype; LoRA
    weights are kept in float32, and rounded where they are multiplied."""
    evaluations: int = Field(default=4, ge=1)
    """How often, evenly over training, validation `right` is measured and a checkpoint written."""
    keep: Literal["best", "last"] = "best"
    """The checkpoint that is handed on: that of the lowest validation `right`, or the last. The
    best on held-out controls can be one from before training controls are told apart."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements of validation without a new lowest after which training ends early; null trains
    to the end."""
    validation_rows: int = Field(default=32, ge=1)
    """Validation rows of each such measurement, drawn by seed, the views interleaved as
    `mixture` weighs them."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of adapter, order, dropout and subset."""

    @model_validator(mode="after")
    def _hides_something(self) -> TrainConfig:
        if self.contrastive and not (self.decoder.masking and set(self.views) - {"control"}):
            raise ValueError(
                "contrastive: got a weight above 0, and every control is visible; expected "
                "decoder.masking and a view other than `control`"
            )
        return self

    @model_validator(mode="after")
    def _has_differences(self) -> TrainConfig:
        if self.decoder.normalisation == "difference" and (
            self.activations != "live" or not self.decoder.masking or "control" in self.views
        ):
            raise ValueError(
                "decoder.normalisation: `difference` needs activations `live`, masking, and views "
                "that hide the control"
            )
        return self

    @model_validator(mode="after")
    def _mixture(self) -> TrainConfig:
        unknown = sorted(self.mixture.keys() - {*self.views, *KIND_NAMES, *SOURCES})
        if unknown:
            raise ValueError(
                f"mixture names {', '.join(unknown)}, which is none of the views "
                f"({', '.join(self.views)}), kinds ({', '.join(KIND_NAMES)}) and sources "
                f"({', '.join(SOURCES)})"
            )
        return self
