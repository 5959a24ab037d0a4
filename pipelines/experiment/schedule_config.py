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
    """A small training on the new version, to see that it can be learned from."""

    rows: int = Field(default=40, ge=1)
    """Training rows."""
    steps: int = Field(default=20, ge=1)
    """Optimiser steps."""
    controls: int = Field(default=24, ge=2)
    """Most controls of a split and view that it is evaluated on."""
    least_gain: float = 0.0
    """Least hidden gain, in nats per token, of the view that has most (where no view is masked, the
    grounded gain): the lower end of its interval, or the estimate where there is none."""


class GateConfig(Config):
    """Thresholds that a new version has to meet before it becomes `latest`."""

    min_controls: int | None = Field(default=None, ge=1)
    """Least controls of the version; null for no limit."""
    max_dropped: Share | None = 0.5
    """Largest share of rows that generation dropped; null for no limit."""
    max_flagged: dict[Flag, Share] = Field(default_factory=dict)
    """Largest share of rows with a flag, by flag: of the step quality, or where there is none, of
    the flags that need no LLM."""
    max_duplicates: Share | None = 0.02
    """Largest share of new controls that are nearly one of the last good version; null for no
    limit."""
    max_drift: Share | None = 0.3
    """Largest distance between the new rows and the last good version in any distribution (kinds,
    categories, question types, lengths), where a test says that it is none of chance; null for no
    limit."""
    canary: CanaryConfig | None = None
    """A small training; null for none."""


class KeepRule(Config):
    """Which numbered versions keep their names; what no name holds, `latentqa gc` removes."""

    last: int = Field(default=3, ge=1)
    """Newest versions that are kept."""
    weekly: int = Field(default=8, ge=0)
    """Weeks of which the newest version is kept, counted back from the newest version."""


class ScheduleSection(Config):
    """The YAML's section `schedule`: what a firing of `latentqa serve` makes."""

    mode: Literal["fresh", "grow"] = "fresh"
    """What is new of a version: `fresh` draws other rows, by another seed; `grow` adds to the rows
    of the version before."""
    by: int = Field(default=8, ge=1)
    """Controls of each kind that a firing adds, where `mode` is `grow`."""
    distinct: bool = True
    """Whether controls of the last good version must not come again where `mode` is `fresh`."""
    until: LastStep | None = None
    """Last step of a scheduled run; null for all, and the report."""
    gate: GateConfig = GateConfig()
    """What a version must meet to become `latest`."""
    keep: KeepRule | None = None
    """Which numbered versions keep their names after each firing; null for all."""
