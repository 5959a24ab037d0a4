"""`selfie`: the activation as a message to the untrained target, which is asked about it.

Chen et al. 2024 (arXiv 2403.10949): an interpretation prompt with several placeholders in a row;
the activation replaces them, or is added to them at their own length.
"""

from __future__ import annotations

import itertools

from activation_store.tokens.content_spans import locate
from decoder.patched_text import PLACE
from evaluators.tasks.predictors.base import PredictorKind, Setting
from evaluators.tasks.predictors.text_predictor import Patch, TextPredictor
from evaluators.tasks.rows import TaskRow

_REPEATS = (1, 5)
_HOW = ("replace", "add")
_REPLY = "Sure, the answer from the message is:"
_MARK = "MESSAGE-OF-PLACEHOLDERS"


class _Selfie(TextPredictor):
    def settings(self) -> list[Setting]:
        return [
            {"layer": layer, "repeats": repeats, "how": how}
            for layer, repeats, how in itertools.product(self._context.layers, _REPEATS, _HOW)
        ]

    def text(self, row: TaskRow, setting: Setting) -> str:
        """Render the prompt, up to where the target goes on with its reply."""
        messages = [
            {"role": "user", "content": f"{_MARK}\n{row.questions[0]}"},
            {"role": "assistant", "content": _REPLY},
        ]
        text, spans = locate(self._context.decoder.tokenizer, messages, generation=False)
        return text[: spans[-1][1]].replace(_MARK, PLACE, 1)

    def patch(self, setting: Setting) -> Patch:
        return Patch(
            layer=int(setting["layer"]),
            write_layer=0,
            how="add" if setting["how"] == "add" else "replace",
            repeats=int(setting["repeats"]),
        )


SELFIE = PredictorKind(name="selfie", sees="activations", make=_Selfie)
