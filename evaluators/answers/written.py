"""Written answers, from a row's own activations and from those of `AGAINST`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from decoder.asking import Answer, generate_answers
from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.answers.answer_quality import AGAINST, SIDES
from evaluators.config import EvaluateConfig
from evaluators.measure.conditions import CONDITIONS, EvalContext
from evaluators.measure.conditions.swapped import SWAPPED
from trainers.data.rows import Row

# readings whose questions are answered together: bounds memory
_READINGS = 12

_Input = tuple[Row, str, Reading]
"""A row, what it is given, and the reading of it."""


def write_answers(
    decoder: Decoder, rows: Sequence[Row], context: EvalContext, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """Write answers about the first controls of `rows`.

    Args:
        decoder: answers.
        rows: evaluated rows.
        context: of their conditions.
        config: how many controls, and how long an answer.

    Returns:
        Rows of answers.parquet, without split and view.
    """
    first = {row.conversation.control_id: i for i, row in reversed(list(enumerate(rows)))}
    picked = [rows[i] for i in sorted(first.values())[: config.answers]]
    inputs = [
        (row, side, CONDITIONS[side].read(row, context))
        for row in picked
        for side in ("right", *AGAINST)
        if side != SWAPPED.name or row.example_id in context.swaps
    ]
    found: dict[tuple[str, str], list[Answer]] = {}
    for batch in _batches(inputs):
        written = iter(
            generate_answers(
                decoder,
                [reading for row, _, reading in batch for _ in row.questions],
                [question.question for row, _, _ in batch for question in row.questions],
                max_tokens=config.max_answer_tokens,
            )
        )
        for row, side, _ in batch:
            found[row.example_id, side] = [next(written) for _ in row.questions]
    return [
        {
            **_about(row, context.partners),
            "question": question.question,
            "type": question.type,
            "gold": question.answer,
            **_sides({side: found[row.example_id, side][j] for side in SIDES}),
            **{
                side: found[row.example_id, side][j].text
                for side in AGAINST
                if (row.example_id, side) in found
            },
        }
        for row in picked
        for j, question in enumerate(row.questions)
    ]


def _batches(inputs: Sequence[_Input]) -> Iterator[list[_Input]]:
    """Group inputs of like length, those with activations and those without apart."""
    for injected in (True, False):
        own = [each for each in inputs if (each[2].vectors is not None) == injected]
        own.sort(key=lambda each: each[2].n)
        for start in range(0, len(own), _READINGS):
            yield own[start : start + _READINGS]


def _sides(answers: Mapping[str, Answer]) -> dict[str, Any]:
    return {
        **{side: own.text for side, own in answers.items()},
        **{f"{side}_log_probability": own.log_probability for side, own in answers.items()},
        **{f"{side}_finished": own.finished for side, own in answers.items()},
    }


def _about(row: Row, partners: Mapping[str, Row]) -> dict[str, Any]:
    own = row.conversation
    return {
        "kind": own.kind,
        "category": own.category,
        "label": own.label,
        "control_id": own.control_id,
        "example_id": own.example_id,
        "control": own.control,
        "other_control": partners[row.example_id].conversation.control,
    }
