"""Whose answer is likelier: the row's own, or that of the control which its decoy quotes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activation_store.target.tokens import tokenize
from core.errors import DataError
from decoder.model import Decoder
from decoder.prompt import Turn
from decoder.scoring import compute_turn_losses
from decoder.target_run import capture
from evaluators.measure.panel import columns, sampler
from evaluators.robustness.alterations import Altered
from evaluators.robustness.config import RobustnessConfig
from evaluators.stats.estimates import Estimate
from trainers.rows import Row

Pair = tuple[str, str, str]
"""A question, the row's own answer, and the decoy's."""


def rival_answers(row: Row, other: Row) -> list[Pair]:
    """Question, own answer and the other control's answer of the same type and place."""
    theirs: dict[tuple[str | None, int], str] = {}
    counts: dict[str | None, int] = {}
    for question in other.questions:
        place = counts[question.type] = counts.get(question.type, -1) + 1
        theirs[question.type, place] = question.answer
    counts.clear()
    out = []
    for question in row.questions:
        place = counts[question.type] = counts.get(question.type, -1) + 1
        rival = theirs.get((question.type, place))
        if rival is not None and rival != question.answer:
            out.append((question.question, question.answer, rival))
    return out


def choices(
    decoder: Decoder,
    rows: Sequence[Row],
    said: Sequence[Altered],
    pairs: Sequence[Sequence[Pair]],
    *,
    masking: bool,
) -> list[list[float]]:
    """Of each row 1 for a choice that falls to its own answer, 0.5 where both are as likely.

    A row that the chat template cannot write has none.
    """
    layers = decoder.select_layers()
    written: dict[int, list[Turn]] = {}
    for i, own in enumerate(said):
        try:
            tokenize(decoder.tokenizer, own.messages)
            written[i] = [
                decoder.prompt.turn(question, answer)
                for question, *answers in pairs[i]
                for answer in answers
            ]
        except DataError:
            continue  # it has no choice, and is left out
    index = [i for i in written if written[i]]
    runs = capture(decoder, [said[i].messages for i in index], layers.layers)
    readings = {
        i: reading
        for i, run in zip(index, runs, strict=True)
        if (reading := run.visible(rows[i].conversation.view, layers, masking=masking)) is not None
    }
    losses = compute_turn_losses(decoder, list(readings.values()), [written[i] for i in readings])
    out: list[list[float]] = [[] for _ in rows]
    for i, found in zip(readings, losses, strict=True):
        mine, theirs = np.array(found[::2]), np.array(found[1::2])
        out[i] = [float(x) for x in (mine < theirs) + 0.5 * (mine == theirs)]
    return out


def own_answers(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    controls: Sequence[str],
    config: RobustnessConfig,
) -> dict[str, Estimate] | None:
    """Share of choices that fall to the row's own answer, without the decoy and with it.

    Args:
        before, after: of each row what `choices` gives.
        controls: of each row.

    Returns:
        {"plain", "altered", "drop"}; None where no row has a choice on both sides.
    """
    both = [i for i in range(len(controls)) if before[i] and after[i]]
    if not both:
        return None
    values = {
        side: np.array([x for i in both for x in scored[i]])
        for side, scored in (("plain", before), ("altered", after))
    }
    of = np.array([controls[i] for i in both for _ in before[i]])
    estimate = sampler(columns(values, of), config.rows)
    return {
        "plain": estimate(lambda m: m[..., 0]),
        "altered": estimate(lambda m: m[..., 1]),
        "drop": estimate(lambda m: m[..., 0] - m[..., 1]),
    }
