"""The base model's weights sharded over the processes (torch's FSDP2).

Each process holds its share of every weight. A block's weights are gathered when it runs, forward
and backward, and freed afterwards; embeddings, final norm and head are gathered for a whole forward
pass. The adapter is whole in each process, and its gradients are averaged as they are without
sharding. So the base may have any number format: it gets no gradients, and shares no buffer with
the adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers.cache_utils import Cache

from activation_store.target.load import blocks
from core.errors import ConfigError, ModelError, first_line
from decoder.model import Decoder
from trainers.distributed.processes import DistributedContext


def make_sharded(
    make: Callable[[torch.device], Decoder], distributed: DistributedContext
) -> Decoder:
    """Make a decoder whose base is sharded over the processes.

    The processes of a machine make theirs one after the other, each in the machine's memory, so
    that one whole copy is there at a time; a device never holds one.

    Args:
        make: makes the whole decoder on a device.
        distributed: the processes that share the base.

    Raises:
        ConfigError: the device is one that torch does not shard on.
        ModelError: torch cannot shard such a model.
    """
    if distributed.device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"runtime.sharding: got full on {distributed.device.type}; torch shards on cpu and "
            "cuda. Set it to none."
        )
    mesh = init_device_mesh(distributed.device.type, (distributed.world_size,))

    def make_and_shard() -> Decoder:
        decoder = make(torch.device("cpu"))
        try:
            _shard(decoder.net, mesh, distributed.device)
        except (ValueError, NotImplementedError) as error:
            raise ModelError(
                f"model {decoder.binding.model}: torch cannot shard it ({first_line(error)}). "
                "Set runtime.sharding to none."
            ) from error
        return decoder

    return distributed.run_in_turn(make_and_shard)


def _shard(net: Any, mesh: DeviceMesh, device: torch.device) -> None:
    """Keep this process's share of the weights of `net`, a peft model, and the whole adapter."""
    adapter = {p for p in net.parameters() if p.requires_grad}
    for weight in adapter:
        weight.data = weight.data.to(device)
    base = net.get_base_model()
    for place, block in enumerate(blocks(base)):
        fully_shard(block, mesh=mesh, ignored_params=adapter)
        block.register_forward_hook(_gather_behind_cache(place), with_kwargs=True)
    # torch would keep these gathered until a backward pass; but work of one process alone, such as
    # saving the adapter, frees them there, and the others would not gather them again with it
    fully_shard(base, mesh=mesh, ignored_params=adapter, reshard_after_forward=True)
    # DDP averages the adapter's gradients; it must not spread one process's share to the others
    frozen = [name for name, weight in net.named_parameters() if weight not in adapter]
    ddp: Any = DistributedDataParallel  # the method has no types
    ddp._set_params_and_buffers_to_ignore_for_model(net, frozen)


def _gather_behind_cache(place: int) -> Callable[..., None]:
    """Return a hook that gathers the weights of block `place` for gradients of its cache.

    torch gathers them for gradients of the block's output alone; the prefix's last block gets its
    gradients through its cached keys and values.
    """

    def hook(block: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        assert isinstance(block, FSDPModule)
        for cache in (*args, *kwargs.values()):
            if isinstance(cache, Cache):
                kept: Any = cache.layers[place]
                for values in (kept.keys, kept.values):
                    if values.requires_grad:
                        values.register_hook(lambda gradient: _gather(block))

    return hook


def _gather(block: FSDPModule) -> None:
    block.unshard()
