"""Compute how likely each option of identification items is to the decoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.identification.choice_items import ChoiceItem
from evaluators.identification.identify import OptionLosses
from evaluators.measure.losses import compute_question_losses
from trainers.data.rows import Row

# rows share their prefix, so a batch holds few of them and many options
_ROWS = 4


def compute_option_losses(
    decoder: Decoder, rows: Sequence[Row], items: Sequence[ChoiceItem], readings: Sequence[Reading]
) -> OptionLosses:
    """Compute the answer loss of each option of each item, in nats per token.

    Args:
        decoder: answers.
        rows: evaluated rows.
        items: about these rows.
        readings: one per row.
    """
    items_of_row: dict[int, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        items_of_row[item.row].append(i)
    asked = [
        Row(
            rows[row].conversation,
            tuple(
                replace(items[i].question, answer=option)
                for i in indices
                for option in items[i].options
            ),
        )
        for row, indices in items_of_row.items()
    ]
    found = compute_question_losses(
        decoder, asked, [readings[row] for row in items_of_row], batch=_ROWS
    )
    out: OptionLosses = [[] for _ in items]
    for indices, losses in zip(items_of_row.values(), found, strict=True):
        rest = iter(losses)
        for i in indices:
            out[i] = [next(rest) for _ in items[i].options]
    return out
