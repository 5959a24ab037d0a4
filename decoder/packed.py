"""Rows as packed sequences: a row's prefix, then all its turns side by side.

Each turn sees the prefix and itself, and its positions continue those of the prefix, so that loss
and gradients are those of one question per row; with little padding, since a row's length is the
sum of its parts. For models whose every block attends to everything before it: a window would be
counted in places of the packed row, not in positions.

Shapes: B rows, S tokens of the longest packed row (right-padded), N placeholders, A answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from decoder.batch import LossBatch, check_positions, make_batch, stack_vectors
from decoder.head import logits_at
from decoder.injection import Injection
from decoder.question_prompt import DecoderPrompt, Turn
from decoder.reading import Reading, at_least_float32


class PackedBatch(LossBatch, total=False):
    """Tensors of B packed rows with Q questions."""

    packed_ids: torch.Tensor  # [B, S] int64
    packed_positions: torch.Tensor  # [B, S] int64
    parts: torch.Tensor  # [B, S] int64: 0 prefix, 1.. turns, -1 padding


def can_pack(net: nn.Module) -> bool:
    """Tell whether every block of the model attends to all that came before, and takes a mask."""
    config: Any = net.config
    if str(config._attn_implementation).startswith("flash"):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def make_loss_batch(
    prompt: DecoderPrompt,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[Turn]],
    *,
    packed: bool,
) -> LossBatch:
    """Stack rows in either layout, for `decoder.forward.compute_answer_losses`."""
    if packed:
        return make_packed_batch(prompt, readings, turns)
    return make_batch(prompt, readings, turns)


def make_packed_batch(
    prompt: DecoderPrompt, readings: Sequence[Reading], turns: Sequence[Sequence[Turn]]
) -> PackedBatch:
    """Pack and stack rows.

    Args:
        prompt: makes the token ids.
        readings: B rows, all with vectors or all without.
        turns: for each row, its questions.

    Raises:
        ValueError: some readings have vectors, others none.
        DataError: a row is longer than the model encodes positions alike.
    """
    prefixes = [prompt.prefix(r) for r in readings]
    check_positions(prefixes, turns, prompt.most_positions)
    lengths = [
        len(p.ids) + sum(len(t.ids) for t in own) for p, own in zip(prefixes, turns, strict=True)
    ]
    shape = (len(readings), max(lengths))
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    parts = np.full(shape, -1, np.int64)
    predicting = np.zeros(shape, bool)
    row_of: list[int] = []
    places, targets, weights, question_of = [], [], [], []
    for i, (p, own) in enumerate(zip(prefixes, turns, strict=True)):
        start = len(p.ids)
        ids[i, :start], parts[i, :start] = p.ids, 0
        positions[i, :start] = p.positions(0, start)
        places.append(p.places + i * shape[1])
        at = start
        for j, turn in enumerate(own):
            stop = at + len(turn.ids)
            ids[i, at:stop], parts[i, at:stop] = turn.ids, j + 1
            positions[i, at:stop] = p.positions(start, start + len(turn.ids))
            predicting[i, at : stop - 1] = turn.answer[1:]
            answer = turn.ids[1:][turn.answer[1:]]
            targets.append(answer)
            weights.append(np.full(len(answer), 1 / len(answer), np.float32))
            question_of.append(np.full(len(answer), len(row_of)))
            row_of.append(i)
            at = stop
    arrays = {
        "packed_ids": ids,
        "packed_positions": positions,
        "parts": parts,
        "row_of": np.array(row_of, np.int64),
        "predicting": np.flatnonzero(predicting),
        "targets": np.concatenate(targets),
        "weights": np.concatenate(weights),
        "question_of": np.concatenate(question_of),
    }
    batch = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return cast(PackedBatch, batch | stack_vectors(readings, places))


def compute_packed_losses(net: nn.Module, injection: Injection, batch: PackedBatch) -> torch.Tensor:
    """Compute the answer loss [Q] of each question of packed rows, in nats per token."""
    injected = injection(batch.get("places"), batch.get("vectors"), batch.get("vector_layers"))
    with injected, logits_at(net, batch["predicting"]):
        logits_AV = net(
            input_ids=batch["packed_ids"],
            attention_mask=make_packed_mask(batch["parts"], next(net.parameters()).dtype),
            position_ids=batch["packed_positions"],
            use_cache=False,
        ).logits
    return question_losses(logits_AV, batch)


def question_losses(logits_AV: torch.Tensor, batch: LossBatch) -> torch.Tensor:
    """Compute the mean loss [Q] of each question over its answer, in float32 or wider."""
    losses_A = F.cross_entropy(at_least_float32(logits_AV), batch["targets"], reduction="none")
    questions = losses_A.new_zeros(len(batch["row_of"]))
    return questions.index_add(0, batch["question_of"], losses_A * batch["weights"])


def make_packed_mask(parts_BS: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Make the additive mask [B, 1, S, S]: 0 where a token is seen, else the dtype's least."""
    size = parts_BS.shape[1]
    asks, asked = parts_BS[:, :, None], parts_BS[:, None, :]
    causal = torch.ones(size, size, dtype=torch.bool, device=parts_BS.device).tril()
    # padding sees itself alone, so that no row of the softmax is empty
    same = (asks == asked) & (asks >= 0) | torch.eye(size, dtype=torch.bool, device=parts_BS.device)
    seen = causal & (same | (asked == 0) & (asks >= 0))
    return additive_mask(seen, dtype)


def additive_mask(seen_BTK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Make the additive mask [B, 1, T, K]: 0 where a token is seen, else the dtype's least."""
    mask = torch.zeros(seen_BTK.shape, dtype=dtype, device=seen_BTK.device)
    return mask.masked_fill(~seen_BTK, torch.finfo(dtype).min)[:, None]
