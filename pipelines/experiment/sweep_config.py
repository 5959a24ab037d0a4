"""The section `sweep`: the settings of an experiment that are varied, and how often."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from core.config import Config
from core.text.redact import holds_credential

ALIASES = {
    "rows": "train.max_rows",
    "questions": "train.questions_per_row",
    "rank": "train.lora.rank",
    "read_layer": "train.decoder.read_layer",
    "mixture": "train.mixture",
    "epochs": "train.epochs",
    "model": "dump.model",
}
"""Short name of an axis to its field."""
SEED = "train.seed"
"""The field that tells the seeds of a setting apart."""
NOT_VARIED = ("experiment", "runtime", "sweep", "schedule", SEED)
"""Fields and sections that no axis can be: they are the sweep's own, or decide no result."""


class SweepSection(Config):
    """The YAML's section `sweep`: scaling curves over an experiment's settings."""

    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Axes, as field: values. A field is a dotted path, or `rows`, `questions`, `rank`,
    `read_layer`, `mixture`, `epochs` or `model`. Every combination of values is a setting."""
    seeds: int = Field(default=1, ge=1, le=1000)
    """Trainings per setting, with seeds from `train.seed` upwards; intervals are over controls and
    seeds."""
    held_out: bool = True
    """Whether the largest value of an axis of at least four is excluded from the power-law fit, to
    test the extrapolation."""

    @field_validator("vary")
    @classmethod
    def _axes(cls, vary: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        fields = [ALIASES.get(name, name) for name in vary]
        if len(set(fields)) != len(fields):
            raise ValueError(
                "expected each field once (a short name and its path are the same field)"
            )
        for name, field, values in zip(vary, fields, vary.values(), strict=True):
            if field.split(".")[0] in NOT_VARIED or field in NOT_VARIED:
                raise ValueError(f"{name} cannot be varied; expected a field that decides a result")
            if holds_credential(values, name):
                raise ValueError(f"{name} cannot be varied with credentials in its values")
            if not values or any(value in values[:i] for i, value in enumerate(values)):
                raise ValueError(f"{name}: expected distinct values, at least one")
        return vary
