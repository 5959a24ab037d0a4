"""The choice between the row's own answer and that of the control which its decoy quotes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from core.errors import DataError
from decoder.model import Decoder
from decoder.question_prompt import Turn
from decoder.scoring import compute_turn_losses
from decoder.sources.target_run import capture_rows, tokenize_readable
from evaluators.answers.metrics.words import comparable_form
from evaluators.measure.metrics import AlteredEstimates
from evaluators.measure.panel import make_bootstrap, stack_control_means
from evaluators.robustness.alterations import AlteredRow
from evaluators.robustness.config import RobustnessConfig
from trainers.data.rows import Row

RivalAnswers = tuple[str, str, str]
"""A question, the row's own answer, and the decoy's."""


def find_rival_answers(row: Row, other: Row) -> list[RivalAnswers]:
    """Find for each question the other control's answer to it; a question of one alone has none.

    An answer to another question would show by its form alone which of the two is the row's.
    """
    theirs = {comparable_form(question.question): question.answer for question in other.questions}
    return [
        (question.question, question.answer, rival)
        for question in row.questions
        if (rival := theirs.get(comparable_form(question.question))) is not None
        and comparable_form(rival) != comparable_form(question.answer)
    ]


def tokenize_asked(
    decoder: Decoder, altered: Sequence[AlteredRow], asked: Sequence[Sequence[tuple[str, str]]]
) -> dict[int, list[Turn]]:
    """Tokenize questions with their answers about each row, by its index.

    A row is absent where the target cannot read it, or the chat template cannot write a question.

    Args:
        decoder: is asked; its target runs on the rows.
        altered: the rows.
        asked: about each row, questions with their answers.
    """
    readable = tokenize_readable(decoder, [change.conversation for change in altered])
    found = {}
    for i, (change, pairs) in enumerate(zip(altered, asked, strict=True)):
        if change.conversation.example_id in readable:
            with contextlib.suppress(DataError):
                found[i] = [decoder.prompt.turn(question, answer) for question, answer in pairs]
    return found


def score_choices(
    decoder: Decoder,
    rows: Sequence[Row],
    altered: Sequence[AlteredRow],
    pairs: Sequence[Sequence[RivalAnswers]],
    *,
    masking: bool,
) -> list[list[float]]:
    """Score each choice of each row: 1 for its own answer, 0.5 where both are as likely.

    Args:
        decoder: answers.
        rows: evaluated rows.
        altered: each of them, altered.
        pairs: choices of each.
        masking: whether the control's own tokens are withheld.

    Returns:
        Scores of each row; one that cannot be written or is too long has none.
    """
    layers = decoder.select_layers()
    asked = [[(question, x) for question, *both in own for x in both] for own in pairs]
    written = tokenize_asked(decoder, altered, asked)
    index = [i for i in written if written[i]]
    runs = capture_rows(decoder, [altered[i].conversation for i in index], layers.layers)
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


def estimate_own_answers(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    controls: Sequence[str],
    config: RobustnessConfig,
) -> AlteredEstimates | None:
    """Estimate the share of choices that fall to the row's own answer.

    Args:
        before: scores of each row without the decoy.
        after: scores of each row with it.
        controls: of each row.
        config: bootstrap settings.

    Returns:
        None where no row has a choice on both sides.
    """
    both = [i for i in range(len(controls)) if before[i] and after[i]]
    if not both:
        return None
    values = {
        side: np.array([x for i in both for x in scored[i]])
        for side, scored in (("plain", before), ("altered", after))
    }
    control_of = np.array([controls[i] for i in both for _ in before[i]])
    estimate = make_bootstrap(stack_control_means(values, control_of), config.rows)
    return AlteredEstimates(
        plain=estimate(lambda m: m[..., 0]),
        altered=estimate(lambda m: m[..., 1]),
        drop=estimate(lambda m: m[..., 0] - m[..., 1]),
    )
