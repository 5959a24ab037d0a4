"""`patchscope`: the activation in place of the subject, in a text that the target continues.

Ghandeharioun et al. 2024 (arXiv 2401.06102): several target prompts, source and target layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from evaluators.tasks.predictors.base import PredictorContext, PredictorKind, Setting
from evaluators.tasks.predictors.patching import Patch, score_patched, write_patched
from evaluators.tasks.rows import TaskRow


class _Patchscope:
    def __init__(self, context: PredictorContext) -> None:
        self._context = context

    def settings(self) -> list[Setting]:
        prompts = range(self._context.forms.patched)
        return [
            {"layer": layer, "prompt": prompt, "write_layer": write_layer}
            for layer, prompt in itertools.product(self._context.layers, prompts)
            for write_layer in dict.fromkeys((0, layer))
        ]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        return write_patched(self._context, rows, _texts(rows, setting), _patch(setting))

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        return score_patched(self._context, rows, _texts(rows, setting), _patch(setting))


def _texts(rows: Sequence[TaskRow], setting: Setting) -> list[str]:
    return [row.patched[int(setting["prompt"])] for row in rows]


def _patch(setting: Setting) -> Patch:
    return Patch(layer=int(setting["layer"]), write_layer=int(setting["write_layer"]))


PATCHSCOPE = PredictorKind(name="patchscope", sees="activations", make=_Patchscope)
