"""Answer losses of every question of some rows, under one condition."""

from __future__ import annotations

from collections.abc import Sequence

from decoder.model import Decoder
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from trainers.data.rows import Row, tokenize_questions


def compute_question_losses(
    decoder: Decoder, rows: Sequence[Row], readings: Sequence[Reading], *, batch: int = 16
) -> list[list[float]]:
    """Compute the answer loss of each question of each row, in nats per token.

    Args:
        decoder: answers.
        rows: with their questions.
        readings: one per row; rows of like length share a forward pass.
        batch: most rows of a forward pass.
    """
    turns = [tokenize_questions(decoder.prompt, row) for row in rows]
    return compute_turn_losses(decoder, readings, turns, batch=batch)
