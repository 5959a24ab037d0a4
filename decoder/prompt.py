"""The decoder's prompt: placeholders for activations, then a question, then the answer.

[user: one placeholder for each visible activation] [assistant: preamble] [user: question]
[assistant: answer] (arXiv 2412.08686, section 3). All places come from rendering the chat template.
The prompt is cut in two: the *prefix*, the same for every question of a row, and the *turn*, which
holds question and answer. The cut is before a special token, which no tokenizer merges across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from activation_store.spans import locate
from decoder.config import DecoderConfig
from generators.errors import DataError, ModelError

_PROBE = "What is it?"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first part of a prompt, P tokens.

    Attributes:
        ids: [P] token ids.
        places: slice of the n placeholders.
        shift: what is added to a token's index to get its position; a position below 0 becomes 0.
    """

    ids: np.ndarray
    places: slice
    shift: int

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Position ids of the tokens from `start` to `stop`, counted from the prefix's first."""
        return np.maximum(np.arange(start, stop) + self.shift, 0)


@dataclass(frozen=True, slots=True)
class Turn:
    """Question and answer, Q tokens; `answer` marks the tokens that carry loss (end of turn too)."""

    ids: np.ndarray
    answer: np.ndarray


class DecoderPrompt:
    """Builds prefixes and turns for one tokenizer and config."""

    def __init__(self, tokenizer: Any, config: DecoderConfig) -> None:
        """Render the template once.

        Raises:
            ModelError: the template cannot be handled, or the placeholder is not one token.
        """
        self._tokenizer = tokenizer
        self._config = config
        placeholder = tokenizer(config.placeholder, add_special_tokens=False)["input_ids"]
        if len(placeholder) != 1:
            raise ModelError(
                f"decoder.placeholder: {config.placeholder!r} is {len(placeholder)} tokens of this "
                "model, expected one."
            )
        self._placeholder = placeholder[0]
        try:
            text, spans = self._locate(_PROBE, _PROBE)
        except DataError as error:
            raise ModelError(f"the decoder's prompt cannot be rendered: {error}") from error
        start, stop = spans[0]
        self._before = self._encode(text[:start])[0]
        ids, offsets = self._encode(text[stop:])
        self._cut = self._last_special(ids, offsets, spans[2][0] - stop)
        self._after = ids[: self._cut]

    def prefix(self, n: int, first_position: int) -> Prefix:
        """The prefix for `n` activations, the first of which stood at `first_position`."""
        ids = np.concatenate([self._before, np.full(n, self._placeholder), self._after])
        start = len(self._before)
        plain = self._config.positions == "plain"
        return Prefix(ids, slice(start, start + n), 0 if plain else first_position - start)

    def turn(self, question: str, answer: str | None) -> Turn:
        """Question and answer; with no answer, the prompt up to where the answer begins.

        Raises:
            DataError: question or answer holds a control token of the model, or is changed by the
                template.
        """
        text, spans = self._locate(question, _PROBE if answer is None else answer)
        base = spans[0][1]
        ids, offsets = self._encode(text[base:])
        (question_start, question_stop), (start, stop) = (
            (a - base, b - base) for a, b in (spans[2], spans[3])
        )
        special = np.isin(ids, self._tokenizer.all_special_ids)
        for a, b in ((question_start, question_stop), (start, stop)):
            if (special & (offsets[:, 0] < b) & (offsets[:, 1] > a)).any():
                raise DataError("a question or answer holds a control token of the model.")
        if not np.array_equal(ids[: self._cut], self._after):
            raise DataError("the chat template writes other text before this question.")
        inside = (offsets[:, 0] < stop) & (offsets[:, 1] > start)
        first = int(np.flatnonzero(inside)[0])
        if answer is None:
            return Turn(ids[self._cut : first], np.zeros(first - self._cut, bool))
        ends = np.flatnonzero(special & (offsets[:, 0] >= stop))
        if not len(ends):
            raise ModelError("the chat template marks no end of an assistant's turn.")
        inside[ends[0]] = True
        return Turn(ids[self._cut : ends[0] + 1], inside[self._cut : ends[0] + 1])

    @property
    def end_of_turn(self) -> int:
        """Token id that ends an answer."""
        return int(self.turn(_PROBE, _PROBE).ids[-1])

    def _locate(self, question: str, answer: str) -> tuple[str, list[tuple[int, int]]]:
        messages = [
            {"role": "user", "content": self._config.placeholder},
            {"role": "assistant", "content": self._config.preamble},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        return locate(self._tokenizer, messages, generation=False)

    def _encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
        return np.asarray(encoded["input_ids"], np.int64), offsets

    def _last_special(self, ids: np.ndarray, offsets: np.ndarray, stop: int) -> int:
        special = np.isin(ids, self._tokenizer.all_special_ids) & (offsets[:, 1] <= stop)
        if not special.any():
            raise ModelError("the chat template has no special token before a question.")
        return int(np.flatnonzero(special)[-1])
