"""The processes that train one decoder together, each with a device of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from activation_store.target.load import pick_device
from core.errors import ConfigError
from core.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """This process among those that `accelerate launch` or `torchrun` started.

    Attributes:
        count: processes in all.
        rank: this one's number.
        device: where its decoder is.
        local_rank: its number among those of its machine.
        shards: whether each holds a share of the base's weights, not all of them.
    """

    count: int
    rank: int
    device: torch.device
    local_rank: int = 0
    shards: bool = False

    @classmethod
    def join(cls, runtime: Runtime) -> Team:
        """Meet the others, where the environment names any.

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
            return cls(count=1, rank=0, device=wanted)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise ConfigError(
                "accelerate: got use_fsdp, which would shard the adapter too; expected "
                "runtime.sharding full. Leave use_fsdp out of accelerate's configuration."
            )
        from accelerate import PartialState

        state = PartialState(cpu=wanted.type == "cpu")
        return cls(
            count=state.num_processes,
            rank=state.process_index,
            device=state.device,
            local_rank=state.local_process_index,
            shards=shards,
        )

    @property
    def first(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on once all have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def total(self, number: int) -> int:
        """Sum of `number` over the processes."""
        if self.count == 1:
            return number
        value = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(value)
        return int(value)

    def most(self, number: int) -> int:
        """The largest `number` of any process."""
        if self.count == 1:
            return number
        value = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
        return int(value)

    def in_turn(self, make: Callable[[], T]) -> T:
        """What `make` returns; the processes of a machine do it one after the other."""
        made: list[T] = []
        for turn in range(self.most(self.local_rank) + 1):
            if turn == self.local_rank:
                made.append(make())
            self.wait()
        return made[0]

    def share(self, rows_per_batch: int) -> int:
        """Rows of a batch that each process takes.

        Raises:
            ConfigError: they do not go into equal parts.
        """
        if rows_per_batch % self.count:
            raise ConfigError(
                f"train.rows_per_batch: {rows_per_batch} rows cannot be shared by {self.count} "
                "processes; expected a multiple of their number."
            )
        return rows_per_batch // self.count
