"""The arms of an evaluation: a decoder, and the input that it gets of each row.

| arm | decoder | input |
|---|---|---|
| a condition (`right`, `other`, ...) | the trained one | that of the condition |
| untrained_right, untrained_other | its adapter off | the row's own; another control's |
| prior | trained on the activations of other controls | another control's |
| visible_text | trained on the visible tokens | the visible tokens |
| text | trained on the control's own words | the control's own words |

The prior decoder gets the kind of input that it was trained on, so it knows nothing of the row.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.measure.conditions import CONDITIONS, EvalContext
from evaluators.measure.panel import UNTRAINED
from trainers.data.decoder_inputs import make_text_reading
from trainers.data.rows import Row


@dataclass(frozen=True, slots=True)
class EvalArm:
    """One column of the panel.

    Attributes:
        read: returns the input of a row.
        activate: opens the context in which the arm's decoder answers.
    """

    read: Callable[[Row, EvalContext], Reading]
    activate: Callable[[], AbstractContextManager[None]]


def make_arms(decoder: Decoder, names: Sequence[str]) -> dict[str, EvalArm]:
    """Make the arms of these names.

    Args:
        decoder: the trained decoder, to which the baselines' adapters were added.
        names: conditions, `UNTRAINED`, and baselines.
    """
    return {name: _make_arm(decoder, name) for name in names}


def _make_arm(decoder: Decoder, name: str) -> EvalArm:
    if name in UNTRAINED:
        condition = CONDITIONS[name.removeprefix("untrained_")]
        return EvalArm(condition.read, decoder.without_adapter)
    if name == "prior":
        return EvalArm(CONDITIONS["other"].read, functools.partial(decoder.with_adapter, name))
    if name == "visible_text":
        return EvalArm(
            lambda row, context: context.visible_text(row),
            functools.partial(decoder.with_adapter, name),
        )
    if name == "text":
        return EvalArm(
            lambda row, context: make_text_reading(decoder.prompt, row),
            functools.partial(decoder.with_adapter, name),
        )
    return EvalArm(CONDITIONS[name].read, contextlib.nullcontext)
