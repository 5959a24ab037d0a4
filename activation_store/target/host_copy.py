"""Copies of block outputs to the CPU, under way while the device computes the next batch.

On CUDA the copy goes into page-locked memory on a stream of its own. Elsewhere there is nothing to
wait for: the numbers are there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class HostCopy:
    """Tensors whose copy to the CPU has begun.

    Attributes:
        values: by layer, on the CPU, in the number format of the store.
        copied: the CUDA event after the copy; None where nothing is under way.
    """

    values: dict[int, torch.Tensor]
    copied: torch.cuda.Event | None = None

    def wait(self) -> dict[int, np.ndarray[Any, Any]]:
        """Return the tensors by layer, in the numpy type in which a store keeps them."""
        if self.copied is not None:
            self.copied.synchronize()
        return {layer: _as_numpy(values) for layer, values in self.values.items()}


class HostCopier:
    """Copies tensors of one device to the CPU.

    Args:
        device: where they are.
        dtype: number format of the store.
    """

    def __init__(self, device: torch.device, dtype: str) -> None:
        self._dtype = _DTYPES[dtype]
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, found: dict[int, torch.Tensor]) -> HostCopy:
        """Begin to copy tensors by layer, rounded to the store's format where they are."""
        rounded = {layer: values.to(self._dtype) for layer, values in found.items()}
        if self._stream is None:
            return HostCopy({layer: values.cpu() for layer, values in rounded.items()})
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        out = {}
        with torch.cuda.stream(self._stream):
            for layer, values in rounded.items():
                out[layer] = torch.empty(values.shape, dtype=self._dtype, pin_memory=True)
                out[layer].copy_(values, non_blocking=True)
                values.record_stream(self._stream)  # its memory is not used anew before the copy
        return HostCopy(out, self._stream.record_event())


def to_stored(values: torch.Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """Convert a tensor of any shape to the numpy type in which `dtype` is stored, on the CPU."""
    return _as_numpy(values.to(_DTYPES[dtype]).cpu())


def _as_numpy(values: torch.Tensor) -> np.ndarray[Any, Any]:
    if values.dtype is torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    return values.numpy()
