"""Scoring: how likely given answers are to the decoder, given activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from decoder.batch import Reading, to_device
from decoder.forward import answer_losses
from decoder.model import Decoder
from decoder.packed import loss_batch
from decoder.prompt import Turn

_TOKENS = 2048
"""Most tokens of a batch, padding counted: what a long row adds to the short ones beside it."""


@torch.inference_mode()
def turn_losses(
    decoder: Decoder,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[Turn]],
    *,
    batch: int = 16,
) -> list[list[float]]:
    """Answer loss of each turn of each reading, in nats a token, in the order given.

    Args:
        readings: one a row, all with vectors or all without; rows of like length share a pass.
        turns: of each row, its questions with their answers; at least one.
        batch: most rows of one pass.
    """
    sizes = [r.n + sum(len(t.ids) for t in own) for r, own in zip(readings, turns, strict=True)]
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    out: list[list[float]] = [[] for _ in sizes]
    for own in _batches(order, sizes, batch):
        given, asked = [readings[i] for i in own], [turns[i] for i in own]
        tensors = loss_batch(decoder.prompt, given, asked, packed=decoder.packs)
        tensors = to_device(tensors, decoder.device)
        losses = answer_losses(decoder.net, decoder.injection, tensors).tolist()
        for q, i in enumerate(tensors["row_of"].tolist()):
            out[own[i]].append(losses[q])
    return out


def _batches(order: Sequence[int], sizes: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Rows in `order`, from short to long, in batches."""
    own: list[int] = []
    for i in order:
        if own and (len(own) == rows or (len(own) + 1) * sizes[i] > _TOKENS):
            yield own
            own = []
        own.append(i)
    if own:
        yield own
