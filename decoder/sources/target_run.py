"""Forward passes of a target over conversations, with the activations of chosen blocks.

The target is the decoder's own network with the adapter off, or another one that a shift experiment
reads (`TargetNetwork`).

Shapes: T tokens of a conversation, D d_model, n tokens that are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.target.capture import Capture
from activation_store.tokens.tokens import Encoded, Tokens, tokenize_row, tokenize_with_text
from core.errors import ConfigError, DataError
from core.records.tables import Conversation, Message
from decoder.batch import batches_by_length
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers, count_withheld

_BATCH_TOKENS = 4096
"""Most tokens of one forward pass, padding counted."""


@dataclass(frozen=True, slots=True)
class TargetNetwork:
    """A network whose activations are read, and its tokenizer."""

    net: nn.Module
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class CapturedTokens:
    """T tokens that a target has run on.

    Attributes:
        tokens: ids and segments.
        vectors: [T, D] float32 by block, its output.
        unread: leading tokens that the decoder does not read in any view (`decoder.tokens`).
    """

    tokens: Tokens
    vectors: dict[int, np.ndarray]
    unread: int

    def reading(self, layers: ReadLayers, chosen: np.ndarray) -> Reading:
        """Return the activations of blocks `layers` at the tokens `chosen` [n], ascending."""
        return Reading(
            np.concatenate([self.vectors[layer][chosen] for layer in layers.layers]),
            len(chosen),
            int(chosen[0]),
            layers.layers if layers.named else (),
            count_skipped(chosen),
        )

    def visible(self, view: str, layers: ReadLayers, *, masking: bool) -> Reading | None:
        """Return what a decoder sees of a conversation of that view; None if nothing is left."""
        chosen = np.arange(self.count_withheld(view, masking=masking), len(self.tokens.ids))
        return self.reading(layers, chosen) if len(chosen) else None

    def count_withheld(self, view: str, *, masking: bool) -> int:
        """Count the leading tokens of a conversation of that view that a decoder does not see."""
        return count_withheld(view, self.tokens.withheld, masking=masking, unread=self.unread)


@dataclass(frozen=True, slots=True)
class CapturedConversation(CapturedTokens):
    """A conversation of T tokens that a target has run on.

    Attributes:
        encoded: where each token stands in the conversation's text.
    """

    encoded: Encoded


def count_skipped(chosen: np.ndarray) -> np.ndarray | None:
    """Count the tokens left out between the first of `chosen` and each; None if none are."""
    skipped = chosen - chosen[0] - np.arange(len(chosen))
    return skipped if skipped[-1] else None


def capture(
    decoder: Decoder,
    conversations: Sequence[Sequence[Message]],
    layers: Sequence[int],
    *,
    source: TargetNetwork | None = None,
) -> list[CapturedConversation]:
    """Run a target on conversations, as its template writes them, up to the deepest of `layers`.

    Args:
        decoder: whose target runs.
        conversations: messages of each.
        layers: blocks whose outputs are kept.
        source: the target; None takes the decoder's own, its network with the adapter off.

    Raises:
        ConfigError: the decoder reads differences.
        DataError: the template refuses a conversation, or it holds a control token.
    """
    tokenizer = decoder.tokenizer if source is None else source.tokenizer
    found = [tokenize_with_text(tokenizer, messages) for messages in conversations]
    tokens = [own for own, _ in found]
    runs = _capture_tokens(decoder, tokens, layers, source)
    return [
        CapturedConversation(run.tokens, run.vectors, run.unread, encoded)
        for run, (_, encoded) in zip(runs, found, strict=True)
    ]


def capture_rows(
    decoder: Decoder,
    rows: Sequence[Conversation],
    layers: Sequence[int],
    *,
    source: TargetNetwork | None = None,
) -> list[CapturedTokens]:
    """Run a target on rows; a completion that it wrote is the tokens that it generated.

    Args and errors are those of `capture`.
    """
    tokenizer = decoder.tokenizer if source is None else source.tokenizer
    tokens = [tokenize_row(tokenizer, row) for row in rows]
    return _capture_tokens(decoder, tokens, layers, source)


def tokenize_readable(decoder: Decoder, rows: Iterable[Conversation]) -> dict[str, Tokens]:
    """Tokenize the rows that the target can read, by example id.

    Those that the chat template cannot write are absent, and those longer than the target was made
    for; a dump leaves them out as well.
    """
    found, longest = {}, decoder.shape.max_positions
    for row in rows:
        with contextlib.suppress(DataError):
            tokens = tokenize_row(decoder.tokenizer, row)
            if len(tokens.ids) <= longest:
                found[row.example_id] = tokens
    return found


@torch.inference_mode()
def _capture_tokens(
    decoder: Decoder,
    tokens: Sequence[Tokens],
    layers: Sequence[int],
    source: TargetNetwork | None,
) -> list[CapturedTokens]:
    """Run a target on tokens, batched by length."""
    refuse_differences(decoder)
    lengths = [len(own.ids) for own in tokens]
    out: dict[int, CapturedTokens] = {}
    target = decoder.without_adapter() if source is None else contextlib.nullcontext()
    with target:
        run = Capture(decoder.net.get_base_model() if source is None else source.net, layers)
        for batch in batches_by_length(lengths, tokens=_BATCH_TOKENS):
            kept = run([tokens[i].ids for i in batch])
            for row, i in enumerate(batch):
                vectors = {k: v[row, : lengths[i]].float().cpu().numpy() for k, v in kept.items()}
                last = decoder.config.last_tokens
                unread = 0 if last is None else max(0, lengths[i] - last)
                out[i] = CapturedTokens(tokens[i], vectors, unread)
    return [out[i] for i in range(len(tokens))]


def refuse_differences(decoder: Decoder) -> None:
    """Refuse a decoder that reads differences, which a conversation alone does not give.

    Raises:
        ConfigError: its normalisation is `difference`.
    """
    if decoder.config.normalisation == "difference":
        raise ConfigError(
            "this decoder needs activations of the same text without its control "
            "(normalisation `difference`), so it can only be evaluated. To ask or steer, "
            "train one with another normalisation."
        )
