"""Methods that are compared on reading tasks. Add one here, and to `PredictorName`."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.tasks.predictors.asking import ASKING
from evaluators.tasks.predictors.base import PredictorKind
from evaluators.tasks.predictors.decoder_predictor import LIT, NONE, PRIOR, SWAPPED, VISIBLE_TEXT
from evaluators.tasks.predictors.neighbour import NEIGHBOUR
from evaluators.tasks.predictors.patchscope import PATCHSCOPE
from evaluators.tasks.predictors.probe import PROBE
from evaluators.tasks.predictors.selfie import SELFIE

PREDICTORS: Mapping[str, PredictorKind] = {
    kind.name: kind
    for kind in (
        *(LIT, PROBE, NEIGHBOUR, PATCHSCOPE, SELFIE),
        *(SWAPPED, PRIOR, VISIBLE_TEXT, NONE, ASKING),
    )
}
"""In the order in which they are shown."""
