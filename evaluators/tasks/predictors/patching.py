"""Predictors that patch an activation into a text which the untrained target continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decoder.injection import How
from decoder.patched_text import PatchedText, continue_texts, score_continuations
from evaluators.tasks.predictors.base import PredictorContext
from evaluators.tasks.rows import TaskRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """How an activation is patched into a text: its place and its block.

    Attributes:
        layer: block at whose output it was taken.
        write_layer: block at whose output it enters.
        how: whether it replaces what is there, or is added to it.
        repeats: placeholders at which it enters.
    """

    layer: int
    write_layer: int
    how: How = "replace"
    repeats: int = 1


def write_patched(
    context: PredictorContext, rows: Sequence[TaskRow], texts: Sequence[str], patch: Patch
) -> list[str]:
    """Write what the target continues each text with, the row's last activation in it."""
    found = continue_texts(
        context.decoder,
        context.decoder.injection_at(patch.write_layer, patch.how),
        _patched(context, rows, texts, patch),
        max_tokens=context.answer_tokens,
    )
    return [answer.text for answer in found]


def score_patched(
    context: PredictorContext, rows: Sequence[TaskRow], texts: Sequence[str], patch: Patch
) -> list[list[float]]:
    """Score each row's options by their likelihood per token as continuations."""
    found = score_continuations(
        context.decoder,
        context.decoder.injection_at(patch.write_layer, patch.how),
        _patched(context, rows, texts, patch),
        [
            [option if text[-1].isspace() else f" {option}" for option in row.options]
            for row, text in zip(rows, texts, strict=True)
        ],
    )
    return [[-loss for loss in losses] for losses in found]


def _patched(
    context: PredictorContext, rows: Sequence[TaskRow], texts: Sequence[str], patch: Patch
) -> list[PatchedText]:
    return [
        PatchedText.make(
            context.decoder.tokenizer, text, row.last(patch.layer), repeats=patch.repeats
        )
        for row, text in zip(rows, texts, strict=True)
    ]
