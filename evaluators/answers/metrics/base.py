"""The base of metrics of written answers: one number per answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenAnswer:
    """An answer that the decoder wrote, and what it is judged by.

    Attributes:
        kind: of the control (`persona`, `goal`, `extractive`, ...).
        type: of the question (`description`, `prediction`, `extraction`), or None where the
            source does not say.
        gold: the answer that was expected.
        text: the answer that was written.
        against: what the decoder wrote to the same question given other activations: given
            another control's where `text` was read from the row's own, and the other way round.
        log_probability: mean over the tokens of `text`, in nats.
        finished: whether the decoder ended `text` itself, before the longest length.
    """

    kind: str
    type: str | None
    question: str
    gold: str
    text: str
    against: str
    log_probability: float
    finished: bool

    @property
    def extracted(self) -> bool:
        """Whether the gold answer is to be found word for word, so that words can be compared."""
        return self.type == "extraction" or (self.type is None and self.kind == "extractive")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number per answer; its mean over controls is reported.

    Attributes:
        name: in the tables.
        score: the number.
        applies: answers that it is about; the others are not counted.
    """

    name: str
    score: Callable[[WrittenAnswer], float]
    applies: Callable[[WrittenAnswer], bool] = lambda written: True
