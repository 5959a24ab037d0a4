"""Methods that are compared on reading tasks, one a file. Add one here, and to `PredictorName`."""

from __future__ import annotations

from collections.abc import Mapping

from evaluators.tasks.config import PredictorName
from evaluators.tasks.predictors.asking import ASKING
from evaluators.tasks.predictors.base import PredictorKind
from evaluators.tasks.predictors.lit import LIT
from evaluators.tasks.predictors.neighbour import NEIGHBOUR
from evaluators.tasks.predictors.none import NONE
from evaluators.tasks.predictors.patchscope import PATCHSCOPE
from evaluators.tasks.predictors.prior import PRIOR
from evaluators.tasks.predictors.probe import PROBE
from evaluators.tasks.predictors.selfie import SELFIE
from evaluators.tasks.predictors.swapped import SWAPPED
from evaluators.tasks.predictors.visible_text import VISIBLE_TEXT

PREDICTORS: Mapping[PredictorName, PredictorKind] = {
    "lit": LIT,
    "probe": PROBE,
    "neighbour": NEIGHBOUR,
    "patchscope": PATCHSCOPE,
    "selfie": SELFIE,
    "swapped": SWAPPED,
    "prior": PRIOR,
    "visible_text": VISIBLE_TEXT,
    "none": NONE,
    "asking": ASKING,
}
"""In the order in which they are shown."""
