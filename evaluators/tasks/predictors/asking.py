"""`asking`: the target is asked in plain words, what was read named outright: a ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from activation_store.tokens.content_spans import locate
from core.errors import ModelError
from decoder.patched_text import PatchedText, continue_texts, score_continuations
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind, Setting
from evaluators.tasks.rows import PlainPrompt, TaskRow

_REPLY = "x"


class _Asking:
    def __init__(self, context: PredictorContext) -> None:
        self._context = context

    def settings(self) -> list[Setting]:
        forms = range(self._context.forms.plain)
        return [{"form": form} for form in forms]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        decoder = self._context.decoder
        found = continue_texts(
            decoder,
            decoder.injection_at(0, "replace"),
            self._texts(rows, setting),
            max_tokens=self._context.answer_tokens,
        )
        return [answer.text for answer in found]

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        decoder = self._context.decoder
        prefilled = [bool(row.plain[int(setting["form"])].prefill) for row in rows]
        found = score_continuations(
            decoder,
            decoder.injection_at(0, "replace"),
            self._texts(rows, setting),
            [
                [f" {option}" if begun else option for option in row.options]
                for row, begun in zip(rows, prefilled, strict=True)
            ],
        )
        return [[-loss for loss in losses] for losses in found]

    def _texts(self, rows: Sequence[TaskRow], setting: Setting) -> list[PatchedText]:
        tokenizer = self._context.decoder.tokenizer
        return [
            PatchedText.make(tokenizer, self._render(row.plain[int(setting["form"])]))
            for row in rows
        ]

    def _render(self, prompt: PlainPrompt) -> str:
        """Render a prompt up to where the target writes, or goes on with, its reply."""
        reply = prompt.prefill or _REPLY
        messages = [
            *({"role": role, "content": content} for role, content in prompt.messages),
            {"role": "assistant", "content": reply},
        ]
        text, spans = locate(self._context.decoder.tokenizer, messages, generation=False)
        start, stop = spans[-1]
        if start == stop:
            raise ModelError("the chat template leaves out how a reply begins.")
        return text[: stop if prompt.prefill else start]


ASKING = PredictorKind(name="asking", sees="text", make=_Asking)
