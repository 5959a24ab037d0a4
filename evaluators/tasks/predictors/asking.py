"""`asking`: the target is asked in plain words, what was read named outright: a ceiling."""

from __future__ import annotations

from activation_store.tokens.content_spans import locate
from core.errors import ModelError
from evaluators.tasks.predictors.base import PredictorKind, Setting
from evaluators.tasks.predictors.text_predictor import TextPredictor
from evaluators.tasks.rows import TaskRow

_REPLY = "x"


class _Asking(TextPredictor):
    def settings(self) -> list[Setting]:
        return [{"form": form} for form in range(len(self._context.example.plain))]

    def text(self, row: TaskRow, setting: Setting) -> str:
        """Render a prompt up to where the target writes, or goes on with, its reply."""
        prompt = row.plain[int(setting["form"])]
        messages = [
            *({"role": role, "content": content} for role, content in prompt.messages),
            {"role": "assistant", "content": prompt.prefill or _REPLY},
        ]
        text, spans = locate(self._context.decoder.tokenizer, messages, generation=False)
        start, stop = spans[-1]
        if start == stop:
            raise ModelError("the chat template leaves out how a reply begins.")
        return text[: stop if prompt.prefill else start]

    def gap(self, row: TaskRow, setting: Setting, text: str) -> str:
        """Leave a space where the reply has begun: at its start the template says what stands."""
        return " " if row.plain[int(setting["form"])].prefill else ""


ASKING = PredictorKind(name="asking", sees="text", make=_Asking)
