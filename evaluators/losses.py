"""Answer losses of every question of some rows, under one condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from decoder.batch import Reading, to_device
from decoder.forward import answer_losses
from decoder.model import Decoder
from decoder.packed import loss_batch
from trainers.rows import Row, row_turns


@torch.inference_mode()
def question_losses(
    decoder: Decoder, rows: Sequence[Row], readings: Sequence[Reading], *, batch: int = 16
) -> list[list[float]]:
    """Nats a token of each question of each row, in the order given.

    Args:
        readings: one a row; rows of like length share a forward pass.
    """
    turns = [row_turns(decoder.prompt, row) for row in rows]
    sizes = [r.n + sum(len(t.ids) for t in own) for r, own in zip(readings, turns, strict=True)]
    order = sorted(range(len(rows)), key=sizes.__getitem__)
    out: list[list[float]] = [[] for _ in rows]
    for start in range(0, len(order), batch):
        own = order[start : start + batch]
        given, asked = [readings[i] for i in own], [turns[i] for i in own]
        tensors = loss_batch(decoder.prompt, given, asked, packed=decoder.packs)
        tensors = to_device(tensors, decoder.device)
        losses = answer_losses(decoder.net, decoder.injection, tensors).tolist()
        for q, i in enumerate(tensors["row_of"].tolist()):
            out[own[i]].append(losses[q])
    return out
