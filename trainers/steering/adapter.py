"""A LoRA adapter of the target, on the network that target and decoder share.

It stands on the blocks up to the read layer, beside the decoder's own adapter, and leaves it as it
is. Saved, it is an ordinary peft adapter of the target.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from activation_store.model_files.files import public_name
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import blocks as blocks_of
from core.files import write_json
from decoder.adapters import multiply_in_base_format, tidy_adapter_folder, use_adapter
from decoder.config import LoraSettings
from decoder.model import Decoder

STEER = "steer"
"""Name of the steering adapter on the decoder's network."""


def add_steering_adapter(
    decoder: Decoder, lora: LoraSettings, *, blocks: int, seed: int, name: str = STEER
) -> None:
    """Put a new adapter on the first `blocks` blocks of the decoder's network.

    It changes nothing yet; one of that name that was there is dropped.
    """
    from peft import LoraConfig

    remove_steering_adapter(decoder, name)
    targets = lora.targets
    if isinstance(targets, str):  # peft takes layers for named modules alone
        targets = linear_names(decoder)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        layers_to_transform=list(range(blocks)),
        task_type="CAUSAL_LM",
    )
    add_target_adapter(decoder, name, config, seed=seed)


def add_target_adapter(decoder: Decoder, name: str, config: Any, *, seed: int) -> None:
    """Put an adapter of the target on the decoder's network, beside the decoder's own.

    The process's generator of random numbers is left as it was.

    Args:
        decoder: on whose network it is to stand.
        name: of the adapter.
        config: peft's settings of it.
        seed: of its weights.
    """
    with torch.random.fork_rng(devices=[]), use_adapter(decoder.net, decoder.adapter):
        torch.manual_seed(seed)
        decoder.net.add_adapter(name, config)
    multiply_in_base_format(decoder.net)
    decoder.net.requires_grad_(False)


def linear_names(decoder: Decoder) -> tuple[str, ...]:
    """Name the linear layers of the decoder's blocks, adapted or not, without their paths."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D, BaseTunerLayer)
    found = set()
    for name, module in blocks_of(decoder.net.get_base_model()).named_modules():
        inside = ".lora_" in name or name.endswith(".base_layer")
        if isinstance(module, linear) and not inside:
            found.add(name.rsplit(".", 1)[-1])
    return tuple(sorted(found))


def remove_steering_adapter(decoder: Decoder, name: str = STEER) -> None:
    """Remove the steering adapter from the decoder's network, if there is one."""
    if name in decoder.net.peft_config:
        decoder.net.delete_adapter(name)
        decoder.net.set_adapter(decoder.adapter)
        decoder.net.requires_grad_(False)


def steering_weights(decoder: Decoder, name: str = STEER) -> list[torch.nn.Parameter]:
    """Return the weights of the steering adapter, in their own order."""
    return [weight for path, weight in decoder.net.named_parameters() if f".{name}." in path]


@contextlib.contextmanager
def scaled_adapter(decoder: Decoder, name: str, strength: float) -> Iterator[None]:
    """Scale what an adapter adds to every layer by `strength` while the context is open."""
    scalings = (getattr(module, "scaling", None) for module in decoder.net.modules())
    own = [scaling for scaling in scalings if isinstance(scaling, dict) and name in scaling]
    before = [scaling[name] for scaling in own]
    try:
        for scaling, value in zip(own, before, strict=True):
            scaling[name] = value * strength
        yield
    finally:
        for scaling, value in zip(own, before, strict=True):
            scaling[name] = value


def save_steering_adapter(
    decoder: Decoder, folder: Path, about: dict[str, Any], *, name: str = STEER
) -> None:
    """Write the steering adapter as an ordinary peft folder, with a JSON of its making beside it.

    Args:
        decoder: on whose network it stands.
        folder: receives it.
        about: facts of its making.
        name: of the adapter.
    """
    net = decoder.net
    net.peft_config[name].base_model_name_or_path = public_name(decoder.binding.model)
    with quiet_libraries():
        net.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    for path in sorted((folder / name).iterdir()):
        shutil.move(path, folder / path.name)
    (folder / name).rmdir()
    tidy_adapter_folder(folder)
    write_json(folder / "steering.json", about)
