"""The target's forward pass up to the deepest read layer, and the outputs of the read layers.

Shapes: B sequences, T tokens, D d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.target import blocks


class _Stop(Exception):
    """Ends a forward pass at the deepest block wanted; no later block and no head runs."""


class Capture:
    """Runs a model on right-padded batches and keeps block outputs.

    Right padding needs no mask: attention is causal, so no token sees one behind it.
    """

    def __init__(self, net: nn.Module, layers: Sequence[int]) -> None:
        self._net = net
        self._layers = tuple(layers)
        self._blocks = blocks(net)
        self._device = next(net.parameters()).device

    @torch.inference_mode()
    def __call__(self, sequences: Sequence[np.ndarray]) -> dict[int, torch.Tensor]:
        """Block outputs [B, T, D] by layer, T the longest; rows behind a sequence's end are noise.

        Args:
            sequences: B arrays of token ids.
        """
        longest = max(len(ids) for ids in sequences)
        batch_BT = np.zeros((len(sequences), longest), np.int64)
        for row, ids in zip(batch_BT, sequences, strict=True):
            row[: len(ids)] = ids
        kept: dict[int, torch.Tensor] = {}
        deepest = max(self._layers)

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                kept[layer] = output if isinstance(output, torch.Tensor) else output[0]
                if layer == deepest:
                    raise _Stop

            return hook

        handles = [self._blocks[k].register_forward_hook(keep(k)) for k in self._layers]
        try:
            self._net(torch.from_numpy(batch_BT).to(self._device), use_cache=False)
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return kept


def to_stored(values: torch.Tensor, dtype: str) -> np.ndarray:
    """A tensor of any shape as the numpy type in which `dtype` is stored, on the CPU."""
    if dtype == "bfloat16":
        return values.to(torch.bfloat16).cpu().view(torch.int16).numpy().view(np.uint16)
    return values.to(getattr(torch, dtype)).cpu().numpy()
