"""The decoder's forward pass: a row's prefix once, then all its questions on top of it.

Keys and values of the prefix are kept with their gradient, so loss and gradients are those of the
plain computation with one question a row (facts: exact to rounding for every family tried).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from activation_store.target.load import shape_of
from core.errors import ModelError
from decoder.batch import Batch
from decoder.injection import Injection
from decoder.packed import PackedBatch, compute_packed_losses, question_losses

_KEPT = (DynamicLayer, DynamicSlidingWindowLayer)


def check_cacheable(net: PreTrainedModel, ref: str) -> None:
    """Refuse a model that keeps something else of a prefix than keys and values of attention.

    Args:
        net: the base model.
        ref: the model's reference, for the message.

    Raises:
        ModelError: a block is recurrent (Mamba, linear attention), or keeps something else.
    """
    layers = DynamicCache(config=net.config).layers
    others = {type(x).__name__ for x in layers if type(x) not in _KEPT}
    if others or len(layers) != shape_of(net.config, ref).n_blocks:
        raise ModelError(
            f"model {ref}: type {net.config.model_type} keeps {', '.join(sorted(others)) or 'none'}"
            " of a prefix, expected the keys and values of attention in every block. "
            "Such a model cannot be a decoder; use another target."
        )


def compute_prefix_cache(net: nn.Module, injection: Injection, batch: Batch) -> DynamicCache:
    """Compute the keys and values of the B prefixes, their activations injected."""
    model: Any = getattr(net, "module", net)  # DDP hides the config
    cache = DynamicCache(config=model.config)
    with injection(batch.get("places"), batch.get("vectors"), batch.get("vector_layers")):
        net(
            input_ids=batch["prefix_ids"],
            attention_mask=batch["prefix_mask"],
            position_ids=batch["prefix_positions"],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    if cache.get_seq_length() != batch["prefix_ids"].shape[1]:
        raise RuntimeError(
            "the decoder kept no keys and values of the prefix (gradient checkpointing turns the "
            "cache off; this model type may have none)"
        )
    return cache


def compute_answer_losses(
    net: nn.Module, injection: Injection, batch: Batch | PackedBatch
) -> torch.Tensor:
    """Compute the answer loss [Q] of each question, in nats per token.

    It is the mean over the answer's tokens, end of turn included. Both layouts of a batch give the
    same losses and gradients, to rounding; the packed one pads less (see
    benchmarks/decoder_layouts.py).

    Args:
        net: a causal language model, possibly wrapped (peft, DDP).
        injection: where and how activations enter.
        batch: rows in either layout.
    """
    if "packed_ids" in batch:
        return compute_packed_losses(net, injection, cast(PackedBatch, batch))
    shared = cast(Batch, batch)
    cache = compute_prefix_cache(net, injection, shared)
    cache.batch_select_indices(shared["row_of"])
    logits_AV = net(
        input_ids=shared["turn_ids"],
        attention_mask=shared["turn_mask"],
        position_ids=shared["turn_positions"],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=shared["predicting"],
    ).logits
    return question_losses(logits_AV, batch)
