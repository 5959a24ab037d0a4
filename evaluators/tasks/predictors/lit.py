"""`lit`: the trained decoder reads the row's own activations."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.predictors.decoder_predictor import DecoderPredictor
from evaluators.tasks.rows import TaskRow


def read_row_activations(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    """Return the rows' own activations."""
    return [
        Reading(
            np.concatenate([row.vectors[layer] for layer in layers.layers]),
            len(row.token_ids),
            row.position,
            layers.layers if layers.named else (),
        )
        for row in rows
    ]


def _make(context: PredictorContext) -> DecoderPredictor:
    return DecoderPredictor(context, read_row_activations, contextlib.nullcontext)


LIT = PredictorKind(name="lit", sees="activations", make=_make)
