"""Answers in words: what the decoder writes, given a row's own activations and given another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decoder.asking import answer
from decoder.model import Decoder
from evaluators.conditions import CONDITIONS, Scene
from evaluators.config import EvaluateConfig
from evaluators.quality import SIDES
from trainers.rows import Row

# rows whose answers are written together: bounds memory
_ROWS = 8


def write_answers(
    decoder: Decoder, rows: Sequence[Row], scene: Scene, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """Rows of answers.parquet, without split and view, about the first controls of `rows`."""
    first = {row.conversation.control_id: i for i, row in reversed(list(enumerate(rows)))}
    picked = [rows[i] for i in sorted(first.values())[: config.answers]]
    return [
        answered
        for start in range(0, len(picked), _ROWS)
        for answered in _write(decoder, picked[start : start + _ROWS], scene, config)
    ]


def _write(
    decoder: Decoder, picked: Sequence[Row], scene: Scene, config: EvaluateConfig
) -> list[dict[str, Any]]:
    asked = [(row, question) for row in picked for question in row.questions]
    readings = {
        side: {row.example_id: CONDITIONS[side].give(row, scene) for row in picked}
        for side in SIDES
    }
    found = answer(
        decoder,
        [readings[side][row.example_id] for side in SIDES for row, _ in asked],
        [question.question for _ in SIDES for _, question in asked],
        max_tokens=config.max_answer_tokens,
    )
    sides = {side: found[i * len(asked) : (i + 1) * len(asked)] for i, side in enumerate(SIDES)}
    return [
        {
            **_about(row, scene.partners),
            "question": question.question,
            "type": question.type,
            "gold": question.answer,
            **{side: sides[side][j].text for side in SIDES},
            **{f"{side}_log_probability": sides[side][j].log_probability for side in SIDES},
            **{f"{side}_finished": sides[side][j].finished for side in SIDES},
        }
        for j, (row, question) in enumerate(asked)
    ]


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
