"""The base of methods in which the untrained target continues a text, as it is or patched."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from decoder.injection import How, Injection
from decoder.patched_text import PatchedText, continue_texts, score_continuations
from evaluators.tasks.predictors.base import PredictorContext, Setting
from evaluators.tasks.rows import TaskRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """How an activation is patched into a text: its place and its block.

    Attributes:
        layer: block at whose output it was taken.
        write_layer: block at whose output it enters.
        how: whether it replaces what is there, or is added to it.
        repeats: placeholders at which it enters.
    """

    layer: int
    write_layer: int
    how: How = "replace"
    repeats: int = 1


class TextPredictor(abc.ABC):
    """Answers with what the target continues a text with; a method says which text."""

    def __init__(self, context: PredictorContext) -> None:
        self._context = context

    @abc.abstractmethod
    def settings(self) -> list[Setting]:
        """Return the settings to try."""

    @abc.abstractmethod
    def text(self, row: TaskRow, setting: Setting) -> str:
        """Return the text about a row, with `PLACE` in it where it is patched."""

    def patch(self, setting: Setting) -> Patch | None:
        """Return how the row's last activation enters the text; None where it does not."""
        return None

    def gap(self, row: TaskRow, setting: Setting, text: str) -> str:
        """Return what stands between the text about a row and an option."""
        return "" if text[-1].isspace() else " "

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        """Write what the target continues each text with."""
        found = continue_texts(
            self._context.decoder,
            self._injection(setting),
            self._patched(rows, setting, [self.text(row, setting) for row in rows]),
            max_tokens=self._context.answer_tokens,
        )
        return [answer.text for answer in found]

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        """Score each row's options by their likelihood per token as continuations."""
        texts = [self.text(row, setting) for row in rows]
        found = score_continuations(
            self._context.decoder,
            self._injection(setting),
            self._patched(rows, setting, texts),
            [
                [f"{self.gap(row, setting, text)}{option}" for option in row.options]
                for row, text in zip(rows, texts, strict=True)
            ],
        )
        return [[-loss for loss in losses] for losses in found]

    def _injection(self, setting: Setting) -> Injection:
        patch = self.patch(setting) or Patch(layer=0, write_layer=0)
        return self._context.decoder.injection_at(patch.write_layer, patch.how)

    def _patched(
        self, rows: Sequence[TaskRow], setting: Setting, texts: Sequence[str]
    ) -> list[PatchedText]:
        tokenizer, patch = self._context.decoder.tokenizer, self.patch(setting)
        if patch is None:
            return [PatchedText.make(tokenizer, text) for text in texts]
        return [
            PatchedText.make(tokenizer, text, row.last(patch.layer), repeats=patch.repeats)
            for row, text in zip(rows, texts, strict=True)
        ]
