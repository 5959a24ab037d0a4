"""Compute logits at chosen positions of a batch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def logits_at(net: nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Run the language head on some places only, while the context is open.

    The network's logits are then [A, V], in the order of the places.

    Args:
        net: a causal language model, possibly wrapped (peft, DDP).
        places: [A] int64, into the flattened [B * T].
    """
    model: Any = getattr(net, "module", net)  # DDP hides the head

    def select(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTD, *rest = args
        own = places.to(hidden_BTD.device)  # a model may be spread over several devices
        return hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, own), *rest

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()
