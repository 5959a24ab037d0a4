"""A model without the blocks behind the deepest that is needed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM


def cut_behind(config: Any, first_blocks: int | None) -> Any:
    """Return a model's config with its first blocks alone.

    Args:
        config: of transformers, the whole model's.
        first_blocks: blocks that are needed; None for all.

    Returns:
        None where that is the whole model, or where the first blocks of a shorter one would compute
        something else: some families scale by their depth, or lay out weights by it.
    """
    if first_blocks is None or first_blocks >= config.get_text_config().num_hidden_layers:
        return None
    short = copy.deepcopy(config)
    try:
        cut_config(short.get_text_config(), first_blocks)
        with torch.device("meta"):
            cut, whole = (
                AutoModelForCausalLM.from_config(own)  # type: ignore[no-untyped-call]
                for own in (short, copy.deepcopy(config))
            )
    except Exception:  # loading the whole model tells what is wrong, if something is
        return None
    return short if _is_beginning(cut, whole) else None


def cut_config(config: Any, first_blocks: int) -> None:
    """Shorten a model's config, and what it lists of each block, to its first blocks."""
    n_blocks = config.num_hidden_layers
    config.num_hidden_layers = first_blocks
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == n_blocks:
            setattr(config, name, value[:first_blocks])


def _is_beginning(cut: nn.Module, whole: nn.Module) -> bool:
    """Return whether all modules of `cut` are in `whole` too, with the same numbers and sizes."""
    others = dict(whole.named_modules())
    own = dict(cut.named_modules())
    return len(own) < len(others) and all(
        name in others and _described(module) == _described(others[name])
        for name, module in own.items()
    )


def _described(module: nn.Module) -> tuple[Any, ...]:
    plain = (bool, int, float, str, type(None))
    numbers = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, plain) and not name.startswith("_")
    }
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return type(module), numbers, {name: own.shape for name, own in tensors}
