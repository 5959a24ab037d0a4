"""The decoder's prompt: placeholders for activations, then a question, then its answer.

[user: one placeholder for each visible activation] [assistant: preamble] [user: question]
[assistant: answer] (arXiv 2412.08686, section 3). All places come from rendering the chat template.
Where the decoder reads several layers, a run of placeholders has its layer's name before it.
The prompt is cut in two: the *prefix*, the same for every question of a row, and the *turn*, which
holds question and answer. The cut is before a special token, which no tokenizer merges across.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from activation_store.tokens.content_spans import locate
from activation_store.tokens.tokens import Encoded, end_of_turn
from core.errors import DataError, ModelError
from decoder.config import DecoderConfig
from decoder.reading import Reading

_PROBE = "What is it?"
_NAME = "Layer {}: "
_TURNS_KEPT = 1 << 16


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first part of a prompt, P tokens.

    Attributes:
        ids: [P] token ids.
        places: [N] indices of the placeholders, the first run's before the second's.
        at: [P] where each token stands; a place below 0 becomes position 0.
    """

    ids: np.ndarray
    places: np.ndarray
    at: np.ndarray

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Return the position ids of the tokens from `start` to `stop`.

        Both are counted from the prefix's first token; a turn continues the prefix.
        """
        behind = self.at[-1] + 1 + np.arange(max(0, stop - len(self.at)))
        positions: np.ndarray = np.maximum(np.concatenate([self.at, behind])[start:stop], 0)
        return positions


@dataclass(frozen=True, slots=True)
class Turn:
    """The second part of a prompt, T tokens.

    Attributes:
        ids: [T] token ids.
        answer: [T] which tokens carry loss: the answer's, up to the end of the turn and with it.
    """

    ids: np.ndarray
    answer: np.ndarray


class DecoderPrompt:
    """Builds prefixes and turns for one tokenizer and config.

    Attributes:
        end_of_turn: token id that ends an answer.
        most_positions: positions that the model encodes alike; None for all.
    """

    def __init__(
        self, tokenizer: Any, config: DecoderConfig, *, most_positions: int | None = None
    ) -> None:
        """Render the template once.

        Args:
            tokenizer: of the model.
            config: the decoder's.
            most_positions: positions that the model encodes alike; None for all.

        Raises:
            ModelError: the template cannot be handled, or the placeholder is not one token.
        """
        self._tokenizer = tokenizer
        self._config = config
        self.most_positions = most_positions
        try:
            encoded, spans = self._encode(_PROBE, _PROBE)
            place = np.flatnonzero(encoded.inside(*spans[0], "decoder.placeholder"))
            encoded.inside(*spans[1], "decoder.preamble")
        except DataError as error:
            raise ModelError(f"the decoder's prompt cannot be rendered: {error}") from error
        tokens = [encoded.text[encoded.starts[i] : encoded.stops[i]].strip() for i in place]
        if tokens != [config.placeholder.strip()]:
            raise ModelError(
                f"decoder.placeholder: {config.placeholder!r} is {tokens} in this model's prompt, "
                "expected one token of its own."
            )
        self._placeholder = encoded.ids[place[0]]
        self._before = encoded.ids[: place[0]]
        self._cut = self._last_special(encoded, spans[2][0])
        if self._cut <= place[0]:
            raise ModelError("the chat template has no special token before a question.")
        self._after = encoded.ids[place[0] + 1 : self._cut]
        # every condition of an evaluation asks the same; rendering costs about a millisecond
        self._turns = functools.lru_cache(maxsize=_TURNS_KEPT)(self._render_turn)
        self.end_of_turn = int(self.turn(_PROBE, _PROBE).ids[-1])

    def prefix(self, reading: Reading) -> Prefix:
        """Build the prefix for a reading; each layer that it names has a run of placeholders."""
        n, first_position, ids = reading.n, reading.first_position, reading.ids
        skipped = 0 if reading.skipped is None else reading.skipped
        stood = first_position + np.arange(n) + skipped
        fill = np.full(n, self._placeholder) if ids is None else ids
        parts, places, at = [], [], []
        size = 0
        for i, layer in enumerate(reading.layers or (None,)):
            name = self._name(layer, first=i == 0)
            before = name if i else np.concatenate([self._before, name])
            parts += [before, fill]
            places.append(np.arange(n) + size + len(before))
            # what stands before a run counts down from it
            at += [np.arange(-len(before), 0) + first_position, stood]
            size += len(before) + n
        parts.append(self._after)
        at.append(stood[-1] + 1 + np.arange(len(self._after)))
        whole = np.concatenate(parts)
        plain = self._config.positions == "plain" or reading.counted_from_0
        return Prefix(
            whole, np.concatenate(places), np.arange(len(whole)) if plain else np.concatenate(at)
        )

    def _name(self, layer: int | None, *, first: bool) -> np.ndarray:
        """Tokenize the name of a layer that stands before its run of placeholders."""
        if layer is None:
            return np.zeros(0, np.int64)
        text = ("" if first else "\n") + _NAME.format(layer)
        return np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)

    def text(self, text: str) -> np.ndarray:
        """Tokenize a text that is to stand in place of the placeholders."""
        return Encoded.of(self._tokenizer, text).ids

    def turn(self, question: str, answer: str | None) -> Turn:
        """Tokenize question and answer; with no answer, the prompt up to where it begins.

        The arrays are shared between callers, and read-only.

        Raises:
            DataError: question or answer is empty, holds a control token of the model, or is
                changed by the template.
            ModelError: the template does not mark where an answer ends.
        """
        return self._turns(question, answer)

    def _render_turn(self, question: str, answer: str | None) -> Turn:
        encoded, spans = self._encode(question, _PROBE if answer is None else answer)
        asked = encoded.inside(*spans[2], "a question")
        written = encoded.inside(*spans[3], "an answer")
        for found, what in ((asked, "question"), (written, "answer")):
            if not found.any():
                raise DataError(f"the {what} is empty.")
        if not np.array_equal(encoded.ids[: self._cut], self.prefix(Reading(None, 1, 0)).ids):
            raise DataError("the chat template writes other text before this question.")
        first = int(np.flatnonzero(written)[0])
        if answer is None:
            return _read_only(encoded.ids[self._cut : first], np.zeros(first - self._cut, bool))
        ends = np.flatnonzero(encoded.special & (encoded.stops > spans[3][1]))
        if len(ends):
            ids = encoded.ids[self._cut : ends[0] + 1]
        elif (end := end_of_turn(self._tokenizer)) is not None:
            ids = np.append(encoded.ids[self._cut :], end)
        else:
            raise ModelError("the chat template marks no end of an assistant's turn.")
        return _read_only(ids, np.arange(len(ids)) >= first - self._cut)

    def _encode(self, question: str, answer: str) -> tuple[Encoded, list[tuple[int, int]]]:
        """Render the prompt with one placeholder; return it and where the contents stand."""
        messages = [
            {"role": "user", "content": self._config.placeholder},
            {"role": "assistant", "content": self._config.preamble},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        text, spans = locate(self._tokenizer, messages, generation=False)
        return Encoded.of(self._tokenizer, text), spans

    @staticmethod
    def _last_special(encoded: Encoded, question: int) -> int:
        """Find the last special token that begins before the question, or 0."""
        before = np.flatnonzero(encoded.special & (encoded.starts < question))
        return int(before[-1]) if len(before) else 0


def _read_only(ids: np.ndarray, answer: np.ndarray) -> Turn:
    ids.flags.writeable = answer.flags.writeable = False
    return Turn(ids, answer)
