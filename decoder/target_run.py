"""Running a target on conversations, and what it leaves at each block.

The target is the decoder's own network with the adapter off, or another one that a shift experiment
reads (`Source`).

Shapes: T tokens of a conversation, D d_model, n tokens that are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.target.capture import Capture
from activation_store.target.tokens import Encoded, Tokens, tokenize_with_text
from core.tables import Message
from decoder.batch import Reading
from decoder.model import Decoder
from decoder.visible_tokens import ReadLayers, withheld_tokens


@dataclass(frozen=True, slots=True)
class Source:
    """A network whose activations are read, and how its conversations become tokens."""

    net: nn.Module
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class Captured:
    """A conversation of T tokens that a target has run on.

    Attributes:
        tokens: ids and segments.
        encoded: where each token stands in the conversation's text.
        vectors: [T, D] float32 by block, its output.
    """

    tokens: Tokens
    encoded: Encoded
    vectors: dict[int, np.ndarray]

    def reading(self, layers: ReadLayers, chosen: np.ndarray) -> Reading:
        """The activations of blocks `layers` at the tokens `chosen` [n], which ascend."""
        return Reading(
            np.concatenate([self.vectors[layer][chosen] for layer in layers.layers]),
            len(chosen),
            int(chosen[0]),
            layers.layers if layers.named else (),
            skipped_before(chosen),
        )

    def visible(self, view: str, layers: ReadLayers, *, masking: bool) -> Reading | None:
        """What a decoder is shown of a conversation of that view; None where nothing is left."""
        first = withheld_tokens(view, self.tokens.withheld, masking=masking)
        chosen = np.arange(first, len(self.tokens.ids))
        return self.reading(layers, chosen) if len(chosen) else None


def skipped_before(chosen: np.ndarray) -> np.ndarray | None:
    """[n] tokens left out between the first of `chosen` and each; None where none are."""
    skipped = chosen - chosen[0] - np.arange(len(chosen))
    return skipped if skipped[-1] else None


@torch.inference_mode()
def capture(
    decoder: Decoder,
    conversations: Sequence[Sequence[Message]],
    layers: Sequence[int],
    *,
    source: Source | None = None,
    batch_tokens: int = 4096,
) -> list[Captured]:
    """Run a target on conversations up to the deepest of `layers`; those of like length together.

    Args:
        source: the target; None takes the decoder's own, which is its network with the adapter off.
        batch_tokens: most tokens of one pass, padding counted; always one conversation at least.

    Raises:
        DataError: the template refuses a conversation, or it holds a control token.
    """
    tokenizer = decoder.tokenizer if source is None else source.tokenizer
    found = [tokenize_with_text(tokenizer, messages) for messages in conversations]
    lengths = [len(tokens.ids) for tokens, _ in found]
    out: dict[int, Captured] = {}
    own = decoder.untrained() if source is None else contextlib.nullcontext()
    with own:
        run = Capture(decoder.net.get_base_model() if source is None else source.net, layers)
        for batch in _batches(lengths, batch_tokens):
            kept = run([found[i][0].ids for i in batch])
            for row, i in enumerate(batch):
                vectors = {k: v[row, : lengths[i]].float().cpu().numpy() for k, v in kept.items()}
                out[i] = Captured(*found[i], vectors)
    return [out[i] for i in range(len(conversations))]


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
