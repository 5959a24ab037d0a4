"""An estimate over controls with its 95 % interval."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from core.text.wording import interval


class Estimate(BaseModel):
    """A value over controls with its 95 % interval.

    Attributes:
        estimate: the value; None where there is no control.
        low: lower end of the interval; None where there are too few controls for one.
        high: upper end, likewise.
        n: number of controls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def __str__(self) -> str:
        """Format as `0.74 [0.66, 0.82]`, or as a dash where nothing was measured."""
        return interval(self.estimate, self.low, self.high)

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return self.estimate is not None

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above zero; never so without an interval."""
        return self.low is not None and self.low > 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of zero; never so without an interval."""
        return self.above_zero or (self.high is not None and self.high < 0)
