"""Methods that ask a decoder, each with readings and an adapter of its own.

| method | decoder | what it is given of a row |
|---|---|---|
| `lit` | the trained one | its activations |
| `swapped` | the trained one | those of the same visible text under another control: only what the row's own control left in them is missing |
| `prior` | trained on other controls' activations | nothing: it knows what answers look like as well as the trained one does, and can only guess |
| `visible_text` | trained on words | the tokens that are read, as words |
| `none` | the trained one | nothing: the placeholders keep their own embeddings |
"""  # noqa: E501

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from decoder.asking import generate_answers
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.visible_tokens import ReadLayers
from evaluators.config import Baseline
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind, Setting
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
        baseline: name of the adapter that answers; None for the decoder's own.
    """

    def __init__(
        self, context: PredictorContext, read: ReadRows, baseline: Baseline | None = None
    ) -> None:
        self._context = context
        self._read = read
        self._activate = (
            contextlib.nullcontext
            if baseline is None
            else functools.partial(context.decoder.with_adapter, baseline)
        )

    def settings(self) -> list[Setting]:
        """Return each layer that it reads with each form of the question."""
        config = self._context.decoder.config
        layers = [one for one in self._context.decoder.layers if one in self._context.layers]
        if config.read_layers and config.combine == "concatenated":
            layers = layers[:1]  # it reads all of them together
        forms = range(len(self._context.example.questions))
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


def _read_activations(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    return [
        Reading(
            np.concatenate([row.vectors[layer] for layer in layers.layers]),
            len(row.token_ids),
            row.position,
            layers.layers if layers.named else (),
        )
        for row in rows
    ]


def _read_swapped(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    return _read_activations(
        [row if row.swapped is None else replace(row, vectors=row.swapped) for row in rows], layers
    )


def _read_words(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    return [Reading(None, len(row.token_ids), row.position, ids=row.token_ids) for row in rows]


def _read_nothing(rows: Sequence[TaskRow], layers: ReadLayers) -> list[Reading]:
    """Return placeholders alone, the same for every row, so that nothing tells rows apart."""
    n = min(len(row.token_ids) for row in rows)
    first = min(row.position for row in rows)
    named = layers.layers if layers.named else ()
    return [Reading(None, n, first, named)] * len(rows)  # one object: its prefix runs once


def _make_baseline(
    context: PredictorContext, read: ReadRows, baseline: Baseline
) -> DecoderPredictor | None:
    """Make the predictor of a trained baseline; None where it was not trained."""
    return DecoderPredictor(context, read, baseline) if baseline in context.baselines else None


def _make_swapped(context: PredictorContext) -> DecoderPredictor | None:
    """Make the predictor of a task whose rows hide something; None of any other."""
    hides = any(row.swapped is not None for row in context.data.test)
    return DecoderPredictor(context, _read_swapped) if hides else None


LIT = PredictorKind(
    name="lit",
    sees="activations",
    make=lambda context: DecoderPredictor(context, _read_activations),
)
SWAPPED = PredictorKind(
    name="swapped",
    sees="nothing",
    make=_make_swapped,
)
PRIOR = PredictorKind(
    name="prior",
    sees="nothing",
    make=lambda context: _make_baseline(context, _read_nothing, "prior"),
)
VISIBLE_TEXT = PredictorKind(
    name="visible_text",
    sees="text",
    make=lambda context: _make_baseline(context, _read_words, "visible_text"),
)
NONE = PredictorKind(
    name="none",
    sees="nothing",
    make=lambda context: DecoderPredictor(context, _read_nothing),
)
