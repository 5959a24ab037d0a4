"""The decoder's forward pass: a row's prefix once, then all its questions on top of it.

Keys and values of the prefix are kept with their gradient, so loss and gradients are those of the
plain computation with one question per row (up to rounding, in every model family tested).
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from activation_store.target.load import shape_of
from core.errors import ModelError
from decoder.batch import Batch, LossBatch
from decoder.head import logits_at
from decoder.injection import Injection
from decoder.packed import (
    PackedBatch,
    additive_mask,
    can_pack,
    compute_packed_losses,
    question_losses,
)

_KEPT = (DynamicLayer, DynamicSlidingWindowLayer)


def check_cacheable(net: PreTrainedModel, ref: str) -> None:
    """Refuse a model that keeps something else of a prefix than keys and values of attention.

    Or one whose positions cannot be set: they would be those of placeholders and packed rows.

    Args:
        net: the base model.
        ref: the model's reference, for the message.

    Raises:
        ModelError: a block is recurrent (Mamba, linear attention), or keeps something else; or
            positions are counted by place (ALiBi and some older families).
    """
    layers = DynamicCache(config=net.config).layers
    others = {type(x).__name__ for x in layers if type(x) not in _KEPT}
    if others or len(layers) != shape_of(net.config, ref).n_blocks:
        raise ModelError(
            f"model {ref}: type {net.config.model_type} keeps {', '.join(sorted(others)) or 'none'}"
            " of a prefix, expected the keys and values of attention in every block. "
            "Such a model cannot be a decoder; use another target."
        )
    takes = inspect.signature(net.forward).parameters
    if "position_ids" not in takes or getattr(net.config, "alibi", False):
        raise ModelError(
            f"model {ref}: type {net.config.model_type} counts positions by place (ALiBi, or "
            "without position_ids), expected positions that can be set. Such a model cannot be a "
            "decoder; use another target."
        )


def attention_mask(net: nn.Module, mask_BK: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Return what tells a network which of K tokens there are for the last T of them.

    transformers looks at a mask [B, K] on the host at every pass; an additive one [B, 1, T, K] it
    takes as it is. On a CPU, and for a model with windows, the former is returned.

    Args:
        net: a causal language model, possibly wrapped.
        mask_BK: 1 at tokens, 0 at padding.
        ids_BT: tokens of the pass.
    """
    if mask_BK.device.type == "cpu" or not can_pack(getattr(net, "module", net)):
        return mask_BK
    keys, asked = mask_BK.shape[1], ids_BT.shape[1]
    places = torch.arange(keys, device=mask_BK.device)
    seen = (mask_BK > 0)[:, None] & (places <= places[keys - asked :, None])
    return additive_mask(seen, next(net.parameters()).dtype)


def compute_prefix_cache(net: nn.Module, injection: Injection, batch: Batch) -> DynamicCache:
    """Compute the keys and values of the B prefixes, their activations injected."""
    model: Any = getattr(net, "module", net)  # DDP hides the config
    cache = DynamicCache(config=model.config)
    injected = injection(batch.get("places"), batch.get("vectors"), batch.get("vector_layers"))
    nowhere = batch["prefix_ids"].new_empty(0)  # no logits are needed
    with injected, logits_at(net, nowhere):
        net(
            input_ids=batch["prefix_ids"],
            attention_mask=attention_mask(model, batch["prefix_mask"], batch["prefix_ids"]),
            position_ids=batch["prefix_positions"],
            past_key_values=cache,
            use_cache=True,
        )
    if cache.get_seq_length() != batch["prefix_ids"].shape[1]:
        raise RuntimeError(
            "the decoder kept no keys and values of the prefix (gradient checkpointing turns the "
            "cache off; this model type may have none)"
        )
    return cache


def select_rows(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Keep the keys and values of some rows, in their order; each block's on its own device."""
    moved: dict[torch.device, torch.Tensor] = {}
    for kept in cache.layers:
        layer = cast(DynamicLayer, kept)  # check_cacheable refuses others
        assert layer.keys is not None
        place = layer.keys.device
        moved.setdefault(place, rows.to(place))
        layer.batch_select_indices(moved[place])


def compute_answer_losses(net: nn.Module, injection: Injection, batch: LossBatch) -> torch.Tensor:
    """Compute the answer loss [Q] of each question, in nats per token.

    It is the mean over the answer's tokens, end of turn included. Both layouts of a batch give the
    same losses and gradients, to rounding; the packed one pads less.

    Args:
        net: a causal language model, possibly wrapped (peft, DDP).
        injection: where and how activations enter.
        batch: rows in either layout.
    """
    if "packed_ids" in batch:
        return compute_packed_losses(net, injection, cast(PackedBatch, batch))
    shared = cast(Batch, batch)
    cache = compute_prefix_cache(net, injection, shared)
    select_rows(cache, shared["row_of"])
    with logits_at(net, shared["predicting"]):
        logits_AV = net(
            input_ids=shared["turn_ids"],
            attention_mask=attention_mask(net, shared["turn_mask"], shared["turn_ids"]),
            position_ids=shared["turn_positions"],
            past_key_values=cache,
            use_cache=True,
        ).logits
    return question_losses(logits_AV, batch)
