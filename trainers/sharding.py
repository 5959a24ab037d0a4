"""The base model's weights in shares, one a process (torch's FSDP2).

Each process holds its share of every weight. A block's weights are gathered when it runs, forward
and backward, and given up behind it; embeddings, final norm and head are gathered for the whole of
a pass. The adapter is whole in each process, and its gradients are averaged as they are without
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
from trainers.distributed import Team


def sharded(make: Callable[[torch.device], Decoder], team: Team) -> Decoder:
    """The decoder that `make` makes, its base shared among the team's processes.

    The processes of a machine make theirs one after the other, each in the machine's memory, so
    that one whole copy is there at a time; a device never holds one.

    Raises:
        ConfigError: the device is one that torch does not shard on.
        ModelError: torch cannot shard such a model.
    """
    if team.device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"runtime.sharding: got full on {team.device.type}; torch shards on cpu and cuda. "
            "Set it to none."
        )
    mesh = init_device_mesh(team.device.type, (team.count,))

    def own() -> Decoder:
        decoder = make(torch.device("cpu"))
        try:
            _shard(decoder.net, mesh, team.device)
        except (ValueError, NotImplementedError) as error:
            raise ModelError(
                f"model {decoder.binding.model}: torch cannot shard it ({first_line(error)}). "
                "Set runtime.sharding to none."
            ) from error
        return decoder

    return team.in_turn(own)


def _shard(net: Any, mesh: DeviceMesh, device: torch.device) -> None:
    """Leave this process its share of the weights of `net`, a peft model, and the whole adapter."""
    adapter = {p for p in net.parameters() if p.requires_grad}
    for weight in adapter:
        weight.data = weight.data.to(device)
    base = net.get_base_model()
    for place, block in enumerate(blocks(base)):
        fully_shard(block, mesh=mesh, ignored_params=adapter)
        block.register_forward_hook(_gather_behind_cache(place), with_kwargs=True)
    # torch would keep these gathered until a backward pass; but what one process alone does then,
    # such as saving the adapter, gives them up in it, and the others would not gather them with it
    fully_shard(base, mesh=mesh, ignored_params=adapter, reshard_after_forward=True)
    # DDP averages the adapter's gradients; it must not spread one process's share to the others
    frozen = [name for name, weight in net.named_parameters() if weight not in adapter]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, frozen)


def _gather_behind_cache(place: int) -> Callable[..., None]:
    """A hook of block `place` through which its weights are there when a gradient comes by its
    cached keys and values: torch looks at the block's output alone, and the prefix's last block
    has no gradient there."""

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
