"""Switching of adapters on a network that target and decoder share.

peft's own switch also flips `requires_grad` of adapter weights, and a backward pass whose weights
were flipped after the forward pass gives no gradient, silently. Here a switch ends where it began:
active adapters, whether they are on, and every weight's `requires_grad`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from core.files import write_json


@contextlib.contextmanager
def use_adapter(net: Any, name: str | None) -> Iterator[None]:
    """Run a peft network with one adapter, or with none, while the context is open.

    Inside, no weight of another adapter takes a gradient, and those of `name` as before. Contexts
    may be nested.

    Args:
        net: a peft model.
        name: the adapter; None turns all off.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in net.modules() if isinstance(module, BaseTunerLayer)]
    before = [(list(layer.active_adapters), layer.disable_adapters) for layer in layers]
    named = net.active_adapter
    flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        for layer, (active, _) in zip(layers, before, strict=True):
            _switch(layer, active if name is None else [name], off=name is None)
        net.active_adapter = net.base_model.active_adapter = name or named
        _restore(flags)
        yield
    finally:
        for layer, (active, off) in zip(layers, before, strict=True):
            _switch(layer, active, off=off)
        net.active_adapter = net.base_model.active_adapter = named
        _restore(flags)


def _switch(layer: Any, active: list[str], *, off: bool) -> None:
    layer.set_adapter(active)
    layer.enable_adapters(not off)


def _restore(flags: list[tuple[Any, bool]]) -> None:
    for parameter, trains in flags:
        parameter.requires_grad_(trains)


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
