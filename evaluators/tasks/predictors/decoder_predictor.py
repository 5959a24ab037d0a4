"""Predictors that ask the decoder, each with readings and an adapter of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from decoder.asking import generate_answers
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.visible_tokens import ReadLayers
from evaluators.tasks.predictors.base import PredictorContext, Setting
from evaluators.tasks.rows import TaskRow

ReadRows = Callable[[Sequence[TaskRow], ReadLayers], list[Reading]]
"""Returns what the decoder is given of each row."""
_ROWS = 32
"""Rows that are answered together: bounds memory."""


class DecoderPredictor:
    """Asks a decoder in each form of a row's question, at each layer that it reads.

    Args:
        context: has the decoder.
        read: returns what it is given of rows.
        activate: opens the context in which its adapter answers.
    """

    def __init__(
        self,
        context: PredictorContext,
        read: ReadRows,
        activate: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._context = context
        self._read = read
        self._activate = activate

    def settings(self) -> list[Setting]:
        """Return each layer that it reads with each form of the question."""
        config = self._context.decoder.config
        layers = [one for one in self._context.decoder.layers if one in self._context.layers]
        if config.read_layers and config.combine == "concatenated":
            layers = layers[:1]  # it reads all of them together
        forms = range(self._context.forms.questions)
        return [{"layer": layer, "question": form} for layer in layers for form in forms]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        """Write an answer to each row."""
        out: list[str] = []
        readings = self._readings(rows, setting)
        questions = [row.questions[int(setting["question"])] for row in rows]
        with self._activate():
            for start in range(0, len(rows), _ROWS):
                found = generate_answers(
                    self._context.decoder,
                    readings[start : start + _ROWS],
                    questions[start : start + _ROWS],
                    max_tokens=self._context.answer_tokens,
                )
                out += [answer.text for answer in found]
        return out

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        """Score the options of each row by their likelihood per token."""
        prompt = self._context.decoder.prompt
        turns = [
            [prompt.turn(row.questions[int(setting["question"])], option) for option in row.options]
            for row in rows
        ]
        with self._activate():
            found = compute_turn_losses(self._context.decoder, self._readings(rows, setting), turns)
        return [[-loss for loss in losses] for losses in found]

    def _readings(self, rows: Sequence[TaskRow], setting: Setting) -> list[Reading]:
        decoder = self._context.decoder
        together = decoder.config.read_layers and decoder.config.combine == "concatenated"
        layers = decoder.select_layers(None if together else int(setting["layer"]))
        return self._read(rows, layers)
