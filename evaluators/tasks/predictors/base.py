"""The interface of a predictor: rows with activations in, written answers or option scores out.

A predictor offers the settings that it can be tried with. They are tried on validation rows, and
the best is what is reported on the test (evaluators/tasks/measure.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from decoder.model import Decoder
from evaluators.tasks.rows import TaskData, TaskRow

Setting = Mapping[str, int | float | str]
"""Values by name that a predictor is tried with; `layer` is the block that it reads."""

Sees = Literal["activations", "text", "nothing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorContext:
    """The decoder, target and task that predictors are made from.

    Attributes:
        decoder: the trained decoder, the adapters of baselines beside it; its base is the target.
        baselines: names of those adapters.
        data: the task, which is measured.
        answer_tokens: longest written answer, in tokens.
    """

    decoder: Decoder
    baselines: tuple[str, ...]
    data: TaskData
    answer_tokens: int

    @property
    def train(self) -> tuple[TaskRow, ...]:
        """Rows that may be learned from."""
        return self.data.train

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks whose activations rows have."""
        return self.data.layers

    @property
    def example(self) -> TaskRow:
        """A row of the task, which has as many forms of its question as any other."""
        return self.data.validation[0]

    @property
    def closed(self) -> bool:
        """Whether test answers are among those of `train`."""
        return self.data.headline == "contained"


class Predictor(Protocol):
    """A method made for one task."""

    def settings(self) -> Sequence[Setting]:
        """Return the settings to try; of equally good ones the first is taken."""

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        """Write an answer to each row."""

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        """Score the options of each row; the option with the highest score is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorKind:
    """A registered method: its name, and the function that makes its predictor.

    Attributes:
        name: in tables.
        sees: what of a row it sees: its activations; words (`text`); or `nothing` of it.
        make: makes it for a task; None where the context lacks what it needs.
    """

    name: str
    sees: Sees
    make: Callable[[PredictorContext], Predictor | None]
