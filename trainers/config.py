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
    """Injection and prompt of the decoder."""
    lora: LoraSettings = LoraSettings()
    """The adapter that is trained."""
    activations: Literal["store", "live"] = "store"
    """Where activations come from: `store` is the step dump; `live` runs the target (the decoder's
    base without its adapter) at every read, and the experiment has no dump."""
    views: tuple[View, ...] = VIEWS
    """Views whose rows are trained on."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most training rows, drawn by seed; null for all."""
    questions_per_row: int | None = Field(default=None, ge=1)
    """Most questions of a training row, drawn by seed; null for all."""
    mixture: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Weights of views, kinds (persona, profile, context, ...) and sources (import, generator)
    among the rows that `max_rows` keeps. Sources are interleaved, within them kinds, within these
    views. A name that is not listed weighs 1; weight 0 leaves it out."""
    rows_per_batch: int = Field(default=8, ge=1, le=1_000_000)
    """Rows (activation prefixes, each with its questions) per batch, over all processes that train
    together."""
    contrastive: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of a loss term that makes each answer likelier given the row's own activations than
    given those of its visible text under another control (trainers/data/contrast.py); 0 for none.
    Needs `train` in dump.swapped and costs up to one more forward pass per masked row."""
    micro_batch_tokens: int = Field(default=1024, ge=1)
    """Most tokens of a micro-batch; larger batches are split, which bounds memory. It changes
    results only by rounding and is not part of the cache key. A single row may be longer."""
    accumulation: int = Field(default=1, ge=1, le=1_000_000)
    """Batches summed into one optimiser step."""
    epochs: float = Field(default=1.0, gt=0, le=1_000_000)
    """Epochs over the training rows; the last batch of an epoch may be smaller. Ignored if
    `max_steps` is set."""
    max_steps: int | None = Field(default=None, ge=1)
    """Total optimiser steps; null uses `epochs`."""
    noise: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)
    """Gaussian noise on the injected activations during training: root mean square as a share of
    their length. Meant for decoders that are to steer: it makes them read directions in which
    activations differ widely."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it then falls along a cosine."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient norm above which gradients are clipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the decoder's weights and arithmetic; `auto` as in dump.compute_dtype. LoRA
    weights are kept in float32 and rounded where they are multiplied."""
    evaluations: int = Field(default=4, ge=1)
    """Number of evenly spaced measurements of validation `right`, each with a checkpoint."""
    keep: Literal["best", "last"] = "best"
    """Checkpoint that is used: the one with the lowest validation `right` (`best`), or the `last`.
    With held-out controls, `best` can date from before the training controls are distinguished."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements without a new lowest validation loss after which training stops; null never
    stops early."""
    validation_rows: int = Field(default=32, ge=1)
    """Validation rows per measurement, drawn by seed, with views interleaved as `mixture` weighs
    them."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of adapter, order, dropout and subset."""

    @property
    def _masks_some(self) -> bool:
        """Whether a view is trained on whose control is hidden."""
        return self.decoder.masking and bool(set(self.views) - {"control"})

    @model_validator(mode="after")
    def _choose_normalisation(self) -> TrainConfig:
        if "normalisation" not in self.decoder.model_fields_set and self._masks_some:
            chosen = self.decoder.model_copy(update={"normalisation": "standardise"})
            self.__dict__["decoder"] = chosen  # the model is frozen for everybody else
        return self

    @model_validator(mode="after")
    def _hides_something(self) -> TrainConfig:
        if self.contrastive and not self._masks_some:
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
