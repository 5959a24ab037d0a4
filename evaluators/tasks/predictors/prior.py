"""`prior`: a decoder that was trained on other controls' activations, given nothing of the row.

It knows what answers look like as well as the trained decoder does, and can only guess.
"""

from __future__ import annotations

import functools

from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.predictors.decoder_predictor import DecoderPredictor
from evaluators.tasks.predictors.none import read_nothing


def _make(context: PredictorContext) -> DecoderPredictor | None:
    if "prior" not in context.baselines:
        return None
    activate = functools.partial(context.decoder.with_adapter, "prior")
    return DecoderPredictor(context, read_nothing, activate)


PRIOR = PredictorKind(name="prior", sees="nothing", make=_make)
