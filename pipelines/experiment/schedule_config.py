"""The section `schedule`: what a scheduled run makes, and when it becomes `latest`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core.config import Config
from generators.quality.config import Flag

Share = Annotated[float, Field(ge=0, le=1)]
LastStep = Literal[
    "questions",
    "complete",
    "quality",
    "dump",
    "train",
    "evaluate",
]


class CanaryConfig(Config):
    """A small training on the new version, to check that it can be learned from."""

    rows: int = Field(default=40, ge=1)
    """Training rows."""
    steps: int = Field(default=20, ge=1)
    """Optimiser steps."""
    controls: int = Field(default=24, ge=2)
    """Most controls per split and view that it is evaluated on."""
    least_gain: float = 0.0
    """Smallest acceptable gain, in nats per token, in the best view: the hidden gain, or the
    grounded gain if no view is masked. The lower end of its interval counts, or the estimate if it
    has none."""


class GateConfig(Config):
    """Thresholds that a new version must meet before it becomes `latest`."""

    min_controls: int | None = Field(default=None, ge=1)
    """Fewest controls of the version; null for no limit."""
    max_dropped: Share | None = 0.5
    """Largest share of rows that generation dropped; null for no limit."""
    max_flagged: dict[Flag, Share] = Field(default_factory=dict)
    """Largest share of rows with a flag, per flag: of the step quality, or without it of the flags
    that need no LLM."""
    max_duplicates: Share | None = 0.02
    """Largest share of new controls that nearly equal one of the last good version; null for no
    limit."""
    max_drift: Share | None = 0.3
    """Largest statistically significant distance between the new rows and the last good version in
    any distribution (kinds, categories, question types, lengths); null for no limit."""
    canary: CanaryConfig | None = None
    """A small training as a check; null for none."""


class KeepRule(Config):
    """Which numbered versions keep their names; `latentqa gc` removes what has no name."""

    last: int = Field(default=3, ge=1)
    """Number of newest versions that are kept."""
    weekly: int = Field(default=8, ge=0)
    """Number of weeks, counted back from the newest version, of which the newest version is
    kept."""


class ScheduleSection(Config):
    """The YAML's section `schedule`: what each scheduled run of `latentqa serve` makes."""

    mode: Literal["fresh", "grow"] = "fresh"
    """How a version differs from the one before: `fresh` draws new rows with another seed; `grow`
    adds rows."""
    by: int = Field(default=8, ge=1)
    """Controls of each kind that a run adds with `mode: grow`."""
    distinct: bool = True
    """Whether controls of the last good version are excluded with `mode: fresh`."""
    until: LastStep | None = None
    """Last step of a scheduled run; null for all, and the report."""
    gate: GateConfig = GateConfig()
    """What a version must meet to become `latest`."""
    keep: KeepRule | None = None
    """Which numbered versions keep their names after each run; null for all."""
