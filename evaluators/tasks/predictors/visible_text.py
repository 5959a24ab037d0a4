"""`visible_text`: a decoder that was trained on words, given the tokens that are read, as words."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.predictors.decoder_predictor import DecoderPredictor
from evaluators.tasks.rows import TaskRow


def _read_words(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    return [Reading(None, len(row.token_ids), row.position, ids=row.token_ids) for row in rows]


def _make(context: PredictorContext) -> DecoderPredictor | None:
    if "visible_text" not in context.baselines:
        return None
    activate = functools.partial(context.decoder.with_adapter, "visible_text")
    return DecoderPredictor(context, _read_words, activate)


VISIBLE_TEXT = PredictorKind(name="visible_text", sees="text", make=_make)
