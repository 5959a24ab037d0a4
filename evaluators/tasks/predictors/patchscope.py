"""`patchscope`: the activation in place of the subject, in a text that the target continues.

Ghandeharioun et al. 2024 (arXiv 2401.06102): several target prompts, source and target layers.
"""

from __future__ import annotations

import itertools

from evaluators.tasks.predictors.base import PredictorKind, Setting
from evaluators.tasks.predictors.text_predictor import Patch, TextPredictor
from evaluators.tasks.rows import TaskRow


class _Patchscope(TextPredictor):
    def settings(self) -> list[Setting]:
        prompts = range(len(self._context.example.patched))
        return [
            {"layer": layer, "prompt": prompt, "write_layer": write_layer}
            for layer, prompt in itertools.product(self._context.layers, prompts)
            for write_layer in dict.fromkeys((0, layer))
        ]

    def text(self, row: TaskRow, setting: Setting) -> str:
        return row.patched[int(setting["prompt"])]

    def patch(self, setting: Setting) -> Patch:
        return Patch(layer=int(setting["layer"]), write_layer=int(setting["write_layer"]))


PATCHSCOPE = PredictorKind(name="patchscope", sees="activations", make=_Patchscope)
