"""Prompts of a steered target, and the tokens whose activations the decoder reads.

Shapes: T tokens of a prompt, n that are read, L layers, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from activation_store.tokens.tokens import Encoded, tokenize_with_text
from core.errors import DataError
from core.records.tables import Message
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers

_PROBE = "What is it?"


@dataclass(frozen=True, slots=True)
class SteeringPrompt:
    """A prompt as tokens.

    Attributes:
        messages: of the conversation.
        ids: [T] token ids, a generation prompt at the end.
        withheld: leading tokens that the decoder does not read: a system prompt, also one that the
            template writes of itself.
        last_tokens: most tokens that it reads, the last ones; None for all behind these.
    """

    messages: tuple[Message, ...]
    ids: np.ndarray
    withheld: int
    last_tokens: int | None = None

    @property
    def unread(self) -> int:
        """Leading tokens that the decoder does not read, by `withheld` or `last_tokens`."""
        if self.last_tokens is None:
            return self.withheld
        return max(self.withheld, len(self.ids) - self.last_tokens)

    def followed_by(self, reply: Sequence[int]) -> SteeringPrompt:
        """Return the prompt with the token ids of a reply behind it."""
        return replace(self, ids=np.concatenate([self.ids, np.asarray(reply, np.int32)]))

    def reading(self, layers: ReadLayers, vectors_LTD: Sequence[torch.Tensor]) -> Reading:
        """Return what the decoder reads of activations [T, D] of each layer."""
        read = [vectors[self.unread : len(self.ids)] for vectors in vectors_LTD]
        return Reading(
            read[0] if len(read) == 1 else torch.cat(read),
            len(read[0]),
            self.unread,
            layers.layers if layers.named else (),
        )


def make_steering_prompt(
    decoder: Decoder, prompt: str, *, system: str | None = None
) -> SteeringPrompt:
    """Tokenize a user message as a prompt whose activations the decoder reads as in training.

    Raises:
        DataError: as `tokenize_prompt`.
    """
    made = tokenize_prompt(decoder.tokenizer, prompt, system=system)
    return replace(made, last_tokens=decoder.config.last_tokens)


def tokenize_prompt(tokenizer: Any, prompt: str, *, system: str | None = None) -> SteeringPrompt:
    """Tokenize a user message, after a system prompt if one is given.

    Raises:
        DataError: a text is empty, the template refuses it, or it holds a control token.
    """
    if not prompt.strip():
        raise DataError("steer: the prompt is empty; expected some text.")
    user = Message(role="user", content=prompt, segment="stimulus")
    if system is not None:
        control = Message(role="system", content=system, segment="control")
        tokens, _ = tokenize_with_text(tokenizer, (control, user))
        return SteeringPrompt((control, user), tokens.ids, tokens.withheld)
    tokens, encoded = tokenize_with_text(tokenizer, (user,))
    return SteeringPrompt((user,), tokens.ids, _count_own_system(tokenizer, user, encoded))


def _count_own_system(tokenizer: Any, user: Message, encoded: Encoded) -> int:
    """Count the tokens of a system prompt that the template writes of itself.

    What stands after a system prompt is known from a conversation that has one.
    """
    probe = Message(role="system", content=_PROBE, segment="control")
    try:
        tokens, known = tokenize_with_text(tokenizer, (probe, user))
    except DataError:
        return 0  # the template knows no system role, and writes no such prompt
    behind = known.text[int(known.starts[tokens.withheld]) :]
    if not tokens.withheld or not encoded.text.endswith(behind):
        return 0
    begin = len(encoded.text) - len(behind)
    return int(np.searchsorted(encoded.starts, begin))
