"""Scoring of given answers by their likelihood under the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from decoder.batch import batches_by_length, to_device
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.question_prompt import Turn
from decoder.reading import Reading

BATCH_ROWS = 16
BATCH_TOKENS = 2048
"""Most tokens of a batch, padding counted: what a long row adds to the short ones beside it."""


@torch.inference_mode()
def compute_turn_losses(
    decoder: Decoder,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[Turn]],
    *,
    batch: int = BATCH_ROWS,
) -> list[list[float]]:
    """Compute the answer loss of each turn of each reading, in nats per token.

    Args:
        decoder: answers.
        readings: one per row, all with vectors or all without; rows of like length share a forward
            pass.
        turns: of each row, its questions with their answers; at least one.
        batch: most rows of a forward pass.

    Returns:
        Losses in the order of `readings` and `turns`.
    """
    sizes = [r.n + sum(len(t.ids) for t in own) for r, own in zip(readings, turns, strict=True)]
    owners: list[int] = []
    losses: list[torch.Tensor] = []
    for rows in batches_by_length(sizes, rows=batch, tokens=BATCH_TOKENS):
        tensors = make_loss_batch(
            decoder.prompt,
            [readings[i] for i in rows],
            [turns[i] for i in rows],
            packed=decoder.can_pack,
        )
        owners += [i for i in rows for _ in turns[i]]
        tensors = to_device(tensors, decoder.device)
        losses.append(compute_answer_losses(decoder.net, decoder.injection, tensors))
    out: list[list[float]] = [[] for _ in sizes]
    # read back once, behind all batches: a device never waits for the host
    for owner, loss in zip(owners, torch.cat(losses).cpu().tolist() if losses else [], strict=True):
        out[owner].append(loss)
    return out
