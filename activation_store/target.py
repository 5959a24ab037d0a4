"""Loading the target, finding its blocks, and choosing where it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from activation_store.model_files import ModelFiles
from activation_store.quiet import quiet_libraries
from activation_store.runtime import Runtime
from generators.errors import ConfigError, ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        except (ValueError, OSError, KeyError) as error:
            raise ModelError(f"model {model.ref}: no usable tokenizer ({_first(error)}).") from error
    if not tokenizer.is_fast:
        raise ModelError(f"model {model.ref}: its tokenizer gives no character offsets (not fast).")
    if tokenizer.chat_template is None:
        raise ModelError(
            f"model {model.ref}: its tokenizer has no chat template; use an instruct model."
        )
    return tokenizer


def load_model(model: ModelFiles, *, dtype: str, device: torch.device) -> nn.Module:
    """The target in eval mode on `device`, without gradients, its adapter (if any) merged in place.

    Raises:
        ModelError: transformers cannot load it.
    """
    with quiet_libraries():
        try:
            net = AutoModelForCausalLM.from_pretrained(model.folder, dtype=DTYPES[dtype])
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"model {model.ref}: transformers cannot load it ({_first(error)})."
            ) from error
        if model.adapter is not None:
            from peft import PeftModel

            net = PeftModel.from_pretrained(net, model.adapter).merge_and_unload()
    return net.to(device).eval().requires_grad_(False)


def blocks(net: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a causal language model, in order.

    Raises:
        ModelError: none are found where any family keeps them.
    """
    inner = getattr(net, "base_model", net)
    places = ("layers", "h", "blocks")
    candidates = [net.get_decoder() if hasattr(net, "get_decoder") else None, inner]
    candidates += [getattr(inner, name, None) for name in ("model", "transformer", "gpt_neox")]
    for module in candidates:
        for place in places:
            found = getattr(module, place, None)
            if isinstance(found, nn.ModuleList) and len(found) == net.config.num_hidden_layers:
                return found
    raise ModelError(
        f"model of type {net.config.model_type}: its blocks were not found; "
        "this architecture is not supported."
    )


def layer_index(layer: int, n_blocks: int, ref: str) -> int:
    """`layer` counted from 0, where -1 is the last.

    Raises:
        ModelError: the model has no such block.
    """
    if not -1 <= layer < n_blocks:
        raise ModelError(
            f"model {ref}: it has blocks 0 to {n_blocks - 1}, got read layer {layer}. "
            "Change dump.layers."
        )
    return layer % n_blocks


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
