"""`swapped`: the trained decoder given the same visible text, run under another control.

It sees the same tokens; only what the row's own control left in their activations is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.predictors.decoder_predictor import DecoderPredictor
from evaluators.tasks.predictors.lit import read_row_activations
from evaluators.tasks.rows import TaskRow


def _read_swapped(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    return read_row_activations(
        [row if row.swapped is None else replace(row, vectors=row.swapped) for row in rows], layers
    )


def _make(context: PredictorContext) -> DecoderPredictor | None:
    if not context.swapped:
        return None
    return DecoderPredictor(context, _read_swapped, contextlib.nullcontext)


SWAPPED = PredictorKind(name="swapped", sees="nothing", make=_make)
