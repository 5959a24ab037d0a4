"""The processes that train one decoder together, each with a device of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from activation_store.runtime import Runtime
from activation_store.target import pick_device
from generators.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """This process among those that `accelerate launch` or `torchrun` started.

    Attributes:
        count: processes in all.
        rank: this one's number.
        device: where its decoder is.
    """

    count: int
    rank: int
    device: torch.device

    @classmethod
    def join(cls, runtime: Runtime) -> Team:
        """Meet the others, where the environment names any.

        Raises:
            ConfigError: `runtime.device` is not here, or the model is to be sharded.
        """
        wanted = pick_device(runtime)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(count=1, rank=0, device=wanted)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise ConfigError(
                "accelerate: got use_fsdp, which shards the decoder; expected the whole of it in "
                "each process. Leave use_fsdp out of accelerate's configuration."
            )
        from accelerate import PartialState

        state = PartialState(cpu=wanted.type == "cpu")
        return cls(count=state.num_processes, rank=state.process_index, device=state.device)

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
