"""Activations in place of placeholders, at the output of one decoder block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def injected(
    block: nn.Module, places: torch.Tensor | None, vectors: torch.Tensor | None
) -> Iterator[None]:
    """Within, the output of `block` holds `vectors` at `places` (arXiv 2412.08686, section 3).

    Args:
        block: decoder block whose output is [B, P, D].
        places: [N] indices into the flattened [B * P]; None injects nothing.
        vectors: [N, D].
    """
    if places is None or vectors is None:
        yield
        return

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        hidden_BPD = output if isinstance(output, torch.Tensor) else output[0]
        flat = hidden_BPD.reshape(-1, hidden_BPD.shape[-1])
        # index_copy, not a mask: no wait for the device, and the rest keeps its gradient
        new = flat.index_copy(0, places, vectors.to(flat.dtype)).view_as(hidden_BPD)
        return new if isinstance(output, torch.Tensor) else (new, *output[1:])

    handle = block.register_forward_hook(replace, prepend=True)
    try:
        yield
    finally:
        handle.remove()
