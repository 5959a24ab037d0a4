"""Switching of adapters on a network that target and decoder share.

peft's own switch also flips `requires_grad` of adapter weights: a backward pass whose weights were
flipped after the forward pass gives no gradient, silently; and on a small batch the flips take as
long as the pass. Here a switch sets what the layers look at, and ends where it began.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F

from core.files import write_json

_LAYERS: WeakKeyDictionary[Any, tuple[list[Any], list[Any]]] = WeakKeyDictionary()
"""The layers of each peft network that hold adapters, beside the settings of its adapters."""


@contextlib.contextmanager
def use_adapter(net: Any, name: str | None) -> Iterator[None]:
    """Run a peft network with one adapter, or with none, while the context is open.

    Inside, no weight of another adapter takes a gradient, and those of `name` as before. Contexts
    may be nested.

    Args:
        net: a peft model.
        name: the adapter; None turns all off.
    """
    layers = _tuner_layers(net)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    named = net.active_adapter
    try:
        for layer in layers:
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        net.active_adapter = net.base_model.active_adapter = name or named
        yield
    finally:
        for layer, (active, off) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, off
        net.active_adapter = net.base_model.active_adapter = named


def _tuner_layers(net: Any) -> list[Any]:
    """List the layers that hold adapters; looked for again when an adapter came or went."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    configs, known = list(net.peft_config.values()), _LAYERS.get(net)
    if known is None or [*map(id, known[0])] != [*map(id, configs)]:
        layers = [module for module in net.modules() if isinstance(module, BaseTunerLayer)]
        _LAYERS[net] = known = configs, layers
    return known[1]


class _RoundedLinear(nn.Linear):
    """A linear layer whose float32 weights are rounded to the number format of what comes in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight.to(input.dtype))


def multiply_in_base_format(net: Any) -> None:
    """Let LoRA matrices be kept in float32, and multiplied in the number format of the base.

    peft would widen all that comes in to float32 instead, and multiply in it. Nothing changes for a
    base in float32.

    Args:
        net: a peft model; adapters that are added later need another call.
    """
    from peft.tuners.lora import LoraLayer

    for layer in net.modules():
        if not isinstance(layer, LoraLayer):
            continue
        layer.cast_input_dtype_enabled = False
        for matrices in (layer.lora_A, layer.lora_B):
            for matrix in matrices.values():
                if type(matrix) is nn.Linear and matrix.bias is None:
                    matrix.__class__ = _RoundedLinear


def tidy_adapter_folder(folder: Path) -> None:
    """Make the folder of an adapter that peft saved the same in every process, without its README.

    peft writes sets in the order of the process's hashes.
    """
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_bytes())
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    write_json(path, settings)
