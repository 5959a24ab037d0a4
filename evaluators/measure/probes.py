"""What the losses are measured under: a decoder, and what it is given of each row.

| probe | decoder | given |
|---|---|---|
| a condition (`right`, `other`, ...) | the trained one | what the condition says |
| untrained_right, untrained_other | its adapter off | the row's own; another control's |
| prior | trained on the activations of other controls | another control's |
| visible_text | trained on the visible tokens | the visible tokens |
| text | trained on the control's own words | the control's own words |

The prior decoder is given what it was trained on, so that it cannot know the row whatever a patched
activation shows by itself.
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
from trainers.decoder_inputs import make_text_reading
from trainers.rows import Row


@dataclass(frozen=True, slots=True)
class Probe:
    """One column of the panel.

    Attributes:
        give: what the decoder is given of a row.
        under: the context in which the decoder is the one that is asked.
    """

    give: Callable[[Row, EvalContext], Reading]
    under: Callable[[], AbstractContextManager[None]]


def probes(decoder: Decoder, names: Sequence[str]) -> dict[str, Probe]:
    """Probe by name.

    Args:
        names: conditions, `UNTRAINED`, and baselines that were added to `decoder`.
    """
    return {name: _probe(decoder, name) for name in names}


def _probe(decoder: Decoder, name: str) -> Probe:
    if name in UNTRAINED:
        return Probe(CONDITIONS[name.removeprefix("untrained_")].give, decoder.without_adapter)
    if name == "prior":
        return Probe(CONDITIONS["other"].give, functools.partial(decoder.with_adapter, name))
    if name == "visible_text":
        return Probe(
            lambda row, context: context.visible_text(row),
            functools.partial(decoder.with_adapter, name),
        )
    if name == "text":
        return Probe(
            lambda row, scene: make_text_reading(decoder.prompt, row),
            functools.partial(decoder.with_adapter, name),
        )
    return Probe(CONDITIONS[name].give, contextlib.nullcontext)
