"""The processes that train one decoder, each with a device of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from activation_store.target.host_copy import send
from activation_store.target.load import pick_device
from core.errors import ConfigError
from core.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistributedContext:
    """This process among those that `accelerate launch` or `torchrun` started.

    Attributes:
        world_size: number of processes.
        rank: number of this one.
        device: where its decoder is.
        local_rank: its number among those of its machine.
        shards_base: whether each process holds a share of the base's weights, not all of them.
    """

    world_size: int
    rank: int
    device: torch.device
    local_rank: int = 0
    shards_base: bool = False

    @classmethod
    def from_environment(cls, runtime: Runtime) -> DistributedContext:
        """Join the process group that the environment names; without one, stand alone.

        Raises:
            ConfigError: `runtime.device` is not here, or a process alone is to shard the model.
        """
        wanted = pick_device(runtime)
        shards = runtime.sharding == "full"
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            if shards:
                raise ConfigError(
                    "runtime.sharding: got full with one process, expected at least two to share "
                    "the weights. Raise runtime.processes, or set it to none."
                )
            return cls(world_size=1, rank=0, device=wanted)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise ConfigError(
                "accelerate: got use_fsdp, which would shard the adapter too; expected "
                "runtime.sharding full. Leave use_fsdp out of accelerate's configuration."
            )
        from accelerate import PartialState

        state = PartialState(cpu=wanted.type == "cpu")
        return cls(
            world_size=state.num_processes,
            rank=state.process_index,
            device=state.device,
            local_rank=state.local_process_index,
            shards_base=shards,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the outputs."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has reached this barrier."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def all_reduce_sum(self, number: int) -> int | torch.Tensor:
        """Sum `number` over the processes; of several on the device, for which nothing waits."""
        if self.world_size == 1:
            return number
        value = send(torch.tensor(number), self.device)
        torch.distributed.all_reduce(value)
        return value

    def all_reduce_max(self, number: int) -> int:
        """Return the largest `number` of any process."""
        if self.world_size == 1:
            return number
        value = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
        return int(value)

    def run_in_turn(self, make: Callable[[], T]) -> T:
        """Call `make` and return its result; the processes of a machine do it one by one."""
        made: list[T] = []
        for turn in range(self.all_reduce_max(self.local_rank) + 1):
            if turn == self.local_rank:
                made.append(make())
            self.barrier()
        return made[0]

    def rows_per_process(self, rows_per_batch: int) -> int:
        """Divide the rows of a batch among the processes.

        Raises:
            ConfigError: they cannot be divided equally.
        """
        if rows_per_batch % self.world_size:
            raise ConfigError(
                f"train.rows_per_batch: {rows_per_batch} rows cannot be shared by "
                f"{self.world_size} processes; expected a multiple of their number."
            )
        return rows_per_batch // self.world_size
