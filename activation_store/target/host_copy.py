"""Copies of block outputs to the CPU, under way while the device computes the next batch.

On CUDA the copy goes into page-locked memory on a stream of its own. Elsewhere there is nothing to
wait for: the numbers are there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_store.target.load import DTYPES


@dataclass(frozen=True, slots=True)
class HostCopy:
    """Tensors whose copy to the CPU has begun.

    Attributes:
        values: by layer, on the CPU, in the number format of the store.
        copied: the CUDA event after the copies from each device; none where nothing is under way.
    """

    values: dict[int, torch.Tensor]
    copied: tuple[torch.cuda.Event, ...] = ()

    def wait(self) -> dict[int, np.ndarray[Any, Any]]:
        """Return the tensors by layer, in the numpy type in which a store keeps them."""
        for event in self.copied:
            event.synchronize()
        return {layer: _as_numpy(values) for layer, values in self.values.items()}


class HostCopier:
    """Copies tensors to the CPU, those of each device on a stream of that device.

    Args:
        dtype: number format of the store.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype = DTYPES[dtype]
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def start(self, found: dict[int, torch.Tensor]) -> HostCopy:
        """Begin to copy tensors by layer, rounded to the store's format where they are."""
        rounded = {layer: values.to(self._dtype) for layer, values in found.items()}
        devices = {values.device for values in rounded.values()}
        if any(device.type != "cuda" for device in devices):
            return HostCopy({layer: values.cpu() for layer, values in rounded.items()})
        out, events = {}, []
        for device in devices:
            stream = self._streams.get(device) or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._streams[device] = stream
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for layer, values in rounded.items():
                    if values.device == device:
                        out[layer] = torch.empty(values.shape, dtype=self._dtype, pin_memory=True)
                        out[layer].copy_(values, non_blocking=True)
                        values.record_stream(stream)  # its memory is not used anew before the copy
                events.append(stream.record_event())
        return HostCopy(out, tuple(events))


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor of the CPU to `device`.

    To CUDA it goes through page-locked memory: a copy from any other waits for all that was
    launched before.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def to_stored(values: torch.Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """Convert a tensor of any shape to the numpy type in which `dtype` is stored, on the CPU."""
    return _as_numpy(values.to(DTYPES[dtype]).cpu())


def _as_numpy(values: torch.Tensor) -> np.ndarray[Any, Any]:
    if values.dtype is torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    return values.numpy()
