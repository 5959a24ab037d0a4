"""`none`: the trained decoder with nothing injected, the placeholders keep their own embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.predictors.decoder_predictor import DecoderPredictor
from evaluators.tasks.rows import TaskRow


def read_nothing(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    """Return placeholders alone, the same for every row, so that nothing tells rows apart."""
    n = min(len(row.token_ids) for row in rows)
    first = min(row.position for row in rows)
    named = layers.layers if layers.named else ()
    return [Reading(None, n, first, named)] * len(rows)  # one object: its prefix runs once


def _make(context: PredictorContext) -> DecoderPredictor:
    return DecoderPredictor(context, read_nothing, contextlib.nullcontext)


NONE = PredictorKind(name="none", sees="nothing", make=_make)
