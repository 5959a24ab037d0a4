"""Loading the target, finding its blocks, and choosing where it runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from activation_store.target.files import ModelFiles
from activation_store.target.quiet import quiet_libraries
from core.errors import ConfigError, ModelError, first_line
from core.runtime import Runtime

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_UNREADABLE = (ValueError, OSError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The numbers of a model that its store needs.

    Attributes:
        ref: the model's reference, for messages.
        n_blocks: transformer blocks.
        d_model: width of the residual stream.
        max_positions: longest sequence that the model was made for, in tokens.
    """

    ref: str
    n_blocks: int
    d_model: int
    max_positions: int

    def layer(self, layer: int, field: str) -> int:
        """`layer` counted from 0, where -1 is the last.

        Raises:
            ModelError: the model has no such block; `field` is the setting to change.
        """
        if not -1 <= layer < self.n_blocks:
            raise ModelError(
                f"model {self.ref}: it has blocks 0 to {self.n_blocks - 1}, got {layer}. "
                f"Change {field}."
            )
        return layer % self.n_blocks


def model_shape(model: ModelFiles) -> Shape:
    """The shape that a model's config names, under whatever names its family has for it.

    Raises:
        ModelError: the config is no causal language model's.
    """
    with quiet_libraries():
        try:
            return shape_of(AutoConfig.from_pretrained(model.folder), model.ref)
        except (*_UNREADABLE, AttributeError) as error:
            raise ModelError(
                f"model {model.ref}: its config.json is not one that transformers can use "
                f"({first_line(error)})."
            ) from error


def shape_of(config: Any, ref: str) -> Shape:
    """The shape in a transformers config."""
    own = config.get_text_config()
    return Shape(
        ref=ref,
        n_blocks=own.num_hidden_layers,
        d_model=own.hidden_size,
        max_positions=getattr(own, "max_position_embeddings", None) or sys.maxsize,
    )


def pick_device(runtime: Runtime) -> torch.device:
    """The device that `runtime.device` names.

    Raises:
        ConfigError: it is not a device, or not here.
    """
    name = runtime.device
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"runtime.device: {name!r} is not a device; expected auto, cpu, cuda, cuda:N or mps."
        ) from error
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= here:
        raise ConfigError(
            f"runtime.device: {name!r} is not on this machine; expected auto or one that is here."
        )
    return device


def use_threads(runtime: Runtime) -> None:
    """Give torch the number of CPU threads that `runtime` names."""
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)


def load_tokenizer(model: ModelFiles) -> Any:
    """The model's tokenizer.

    Raises:
        ModelError: it has no chat template, or no fast tokenizer with character offsets.
    """
    with quiet_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(model.folder)
        except Exception as error:  # the Rust library raises a bare Exception for a broken file
            raise ModelError(
                f"model {model.ref}: no usable tokenizer ({first_line(error)})."
            ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"model {model.ref}: its tokenizer gives no character offsets (not fast).")
    if tokenizer.chat_template is None:
        raise ModelError(
            f"model {model.ref}: its tokenizer has no chat template; use an instruct model."
        )
    return tokenizer


def load_model(
    model: ModelFiles, *, dtype: str, device: torch.device, merged: bool = True
) -> nn.Module:
    """The target in eval mode on `device`, without gradients.

    Args:
        merged: whether its adapter (if any) is merged into the weights, or works beside them.

    Raises:
        ModelError: transformers cannot load it, or peft its adapter.
    """
    with quiet_libraries():
        try:
            net = AutoModelForCausalLM.from_pretrained(model.folder, dtype=DTYPES[dtype])
        except _UNREADABLE as error:
            raise ModelError(
                f"model {model.ref}: transformers cannot load it ({first_line(error)})."
            ) from error
        if model.adapter is not None:
            net = load_adapter(net, model.adapter)
            net = net.merge_and_unload() if merged else net
    return net.to(device).eval().requires_grad_(False)


def load_adapter(net: nn.Module, folder: Path) -> Any:
    """`net` with the PEFT adapter in `folder`.

    Raises:
        ModelError: the adapter cannot be read, or does not fit `net`.
    """
    from peft import PeftModel

    with quiet_libraries():
        try:
            return PeftModel.from_pretrained(net, folder)
        except (*_UNREADABLE, TypeError) as error:
            raise ModelError(
                f"adapter {folder}: peft cannot load it into this model ({first_line(error)})."
            ) from error


def blocks(net: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a causal language model, in order.

    Raises:
        ModelError: none are found where any family keeps them.
    """
    inner = getattr(net, "base_model", net)
    n_blocks = shape_of(net.config, "").n_blocks
    places = ("layers", "h", "blocks")
    candidates = [net.get_decoder() if hasattr(net, "get_decoder") else None, inner]
    candidates += [getattr(inner, name, None) for name in ("model", "transformer", "gpt_neox")]
    for module in candidates:
        for place in places:
            found = getattr(module, place, None)
            if isinstance(found, nn.ModuleList) and len(found) == n_blocks:
                return found
    raise ModelError(
        f"model of type {net.config.model_type}: its blocks were not found; "
        "this architecture is not supported."
    )
