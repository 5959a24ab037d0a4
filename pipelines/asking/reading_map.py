"""Maps of where an answer can be read: its likelihood over windows of tokens and over blocks.

Each cell is the answer's log-probability given the activations of one window at one block, less
that given none (the placeholders' own embeddings, as many and at the same positions): nats a token
that the activations tell the decoder. The decoder was trained on one block and on complete
readings; other cells show what it can read without training on them.

Shapes: L blocks, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from activation_store.target.load import shape_of
from core.errors import ConfigError
from decoder.asking import generate_answers
from decoder.question_prompt import Turn
from decoder.reading import Reading
from decoder.scoring import compute_turn_losses
from decoder.sources.target_run import CapturedConversation
from pipelines.asking.reader import Reader
from pipelines.asking.results import Prompt

LAYERS = 8
"""Blocks of a map, the trained one among them, where none are named."""
WINDOWS = 12
"""Windows of a map, where their length is not named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A window of neighbouring tokens that are read together.

    Attributes:
        start, stop: of the conversation's tokens, counted from 0; between them may lie tokens
            that were not chosen.
        text: what they spell.
    """

    start: int
    stop: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingMap:
    """How well an answer can be read, by block and window of tokens.

    Attributes:
        prompt: the conversation, and the question.
        answer: the answer that is mapped.
        written: whether the decoder wrote it, given all chosen tokens; else it was given.
        trained: blocks that the decoder was trained on.
        layers: [L] blocks.
        windows: [W].
        gains: [L, W] nats a token, given the window's activations above given none.
        none: [W] log-probability given none, nats a token.
        whole: [L] as `gains`, given all chosen tokens at once.
    """

    prompt: Prompt
    answer: str
    written: bool
    trained: tuple[int, ...]
    layers: tuple[int, ...]
    windows: tuple[Window, ...]
    gains: np.ndarray
    none: np.ndarray
    whole: np.ndarray

    @property
    def colour_limit(self) -> float:
        """Number at which a map's colours are strongest, on both sides of zero.

        The largest gain, so that a block with a large loss does not make the others pale.
        """
        largest = float(max(self.gains.max(), self.whole.max()))
        return largest if largest > 0 else float(np.abs(self.gains).max()) or 1.0

    @property
    def question(self) -> str:
        """What is asked."""
        return self.prompt.questions[0]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each cell, for CSV and JSON."""
        for i, layer in enumerate(self.layers):
            for j, window in enumerate(self.windows):
                yield {
                    "layer": layer,
                    "start": window.start,
                    "stop": window.stop,
                    "text": window.text,
                    "gain": float(self.gains[i, j]),
                    "log_probability": float(self.none[j] + self.gains[i, j]),
                    "none": float(self.none[j]),
                }

    def to_json(self) -> dict[str, Any]:
        """Return the whole as a JSON document; `cells` are `rows`."""
        return {
            **self.prompt.to_json(),
            "question": self.question,
            "answer": self.answer,
            "answer_written": self.written,
            "tokens": self.prompt.tokens,
            "whole": [
                {"layer": layer, "gain": float(gain)}
                for layer, gain in zip(self.layers, self.whole, strict=True)
            ],
            "cells": list(self.rows()),
        }


def reading_map(
    reader: Reader,
    prompt: Prompt,
    *,
    answer: str | None = None,
    layers: Sequence[int] | None = None,
    window: int | None = None,
    max_tokens: int = 40,
) -> ReadingMap:
    """Map where an answer can be read.

    Args:
        reader: a decoder with its target.
        prompt: a conversation and one question; `prompt.tokens` are cut into windows.
        answer: what is mapped; None takes what the decoder answers, given all those tokens.
        layers: blocks, -1 the last; None takes those that the decoder was trained on, where they
            are several, else some, evenly spaced, and the trained one.
        window: tokens of a window; None makes about a dozen windows. The last may be shorter.
        max_tokens: longest answer that the decoder writes, in tokens.

    Raises:
        ConfigError: several questions, a window below 1, or a decoder that reads several layers
            together.
        ModelError: the target has no such block.
        DataError: the template refuses the conversation, question or answer.
    """
    if len(prompt.questions) != 1:
        raise ConfigError(f"map: got {len(prompt.questions)} questions, expected one.")
    if window is not None and window < 1:
        raise ConfigError(f"map: got a window of {window} tokens, expected at least 1.")
    decoder = reader.decoder
    blocks = _blocks(reader, layers)
    own = reader.layers()
    (run,) = reader.capture([prompt.messages], sorted({*blocks, *own.layers}))
    chosen, _ = reader.choose_tokens(prompt, run)
    question = prompt.questions[0]
    mapped = answer
    if mapped is None:
        given = [run.reading(own, chosen)]
        mapped = generate_answers(decoder, given, [question], max_tokens=max_tokens)[0].text
    turn = decoder.prompt.turn(question, mapped)
    size = window or max(1, -(-len(chosen) // WINDOWS))
    parts = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    # all chosen tokens at once stand in the last column
    cells = [
        [run.reading(reader.layers(block), part) for part in (*parts, chosen)] for block in blocks
    ]
    none_W = -_losses(reader, [_nothing(reading) for reading in cells[0]], turn)
    told_LW = np.stack([-_losses(reader, row, turn) for row in cells]) - none_W
    return ReadingMap(
        prompt=prompt,
        answer=mapped,
        written=answer is None,
        trained=reader.trained_layers,
        layers=blocks,
        windows=tuple(_window(run, part) for part in parts),
        gains=told_LW[:, :-1],
        none=none_W[:-1],
        whole=told_LW[:, -1],
    )


def _blocks(reader: Reader, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Select the blocks of the map, in order; each is one that the decoder can be given alone."""
    if layers is not None:
        return tuple(sorted({reader.layers(layer, "--layers").layers[0] for layer in layers}))
    if len(reader.trained_layers) > 1:
        return tuple(sorted(reader.layers(layer).layers[0] for layer in reader.trained_layers))
    (trained,) = reader.trained_layers
    net = reader.decoder.net.get_base_model()
    n_blocks = shape_of(net.config, reader.decoder.binding.model).n_blocks
    spread = np.linspace(0, n_blocks - 1, min(LAYERS, n_blocks)).round().astype(int)
    # the trained block takes the place of its nearest
    spread[np.abs(spread - trained).argmin()] = trained
    return tuple(map(int, spread))


def _nothing(reading: Reading) -> Reading:
    return replace(reading, vectors=None)


def _losses(reader: Reader, readings: Sequence[Reading], turn: Turn) -> np.ndarray:
    losses = compute_turn_losses(reader.decoder, readings, [[turn]] * len(readings))
    return np.array([own[0] for own in losses])


def _window(run: CapturedConversation, part: np.ndarray) -> Window:
    encoded = run.encoded
    spelled = (encoded.text[encoded.starts[i] : encoded.stops[i]] for i in part)
    return Window(start=int(part[0]), stop=int(part[-1]) + 1, text="".join(spelled))
