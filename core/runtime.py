"""Runtime settings change how fast and where a step runs, never its result; they are not hashed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.config import Config


class Runtime(Config):
    """Device, workers and other settings that change speed and place, not results."""

    device: str = "auto"
    """Where models run: `auto` (CUDA, then MPS, then CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of torch; null leaves torch's own choice. A dump on a CPU shares them among as
    many as four forward passes at once."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """Tasks at once: shards of an activation store, requests to an LLM endpoint, points of a sweep;
    each in a process with `threads` CPU threads, and with the target or the decoder in memory and a
    GPU of its own where it needs them. Null is one, and for the shards of a store one a GPU."""
    task_runner: Literal["processes", "threads"] = "processes"
    """Who runs tasks where `workers` is above 1: a pool of processes, each of which runs several in
    turn; or threads, each of which waits for a process of its task's own. On a Prefect server these
    are its task runners."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Processes that train together, each with a GPU of its own or with `threads` CPU threads;
    `train.rows_per_batch` is shared among them."""
    sharding: Literal["none", "full"] = "none"
    """How the base's weights lie in the processes that train together: `none` is whole in each;
    `full` is a share in each, gathered block by block as they run, for a base too large for one
    device."""
    attn_implementation: str | None = None
    """Attention of transformers with which models are loaded (`sdpa`, `eager`, `flash_attention_2`,
    ...); null leaves its own choice, `sdpa` for most. Flash attention takes no mask: a decoder's
    rows are then not packed, and each question continues the keys and values of its prefix."""
    spread: bool = False
    """Whether a model is spread over all GPUs of the machine, some blocks on each, for one that is
    too large for a single GPU: in dump, complete, evaluate, robustness, tasks and control. Training
    shares weights by `sharding`."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Processes that share the target in a dump, each with a GPU and with a share of every weight
    (transformers' `tp_plan`), so that all GPUs compute at once; for a target without an adapter
    that is too large for a single GPU. Other steps may have it spread."""
    checkpointing: bool = False
    """Whether training keeps little more of a block's activations than what went into it, and
    computes the rest again in the backward pass (gradient checkpointing): much less memory, about a
    third more time, the same result. For decoders whose rows are packed."""
    concurrency: int = Field(default=256, ge=1)
    """Most LLM requests under way at once; how many there are follows what the endpoint takes well.
    The embedded generator takes 4."""
    shard_cache_mb: int = Field(default=512, ge=16)
    """Decoded shards of the activation store kept in memory, in MiB."""
    reuse_rows: bool = True
    """Whether activations that another store of the same target in the artifact root holds are
    taken over from it, and not computed again."""
    store_gb: float | None = Field(default=None, gt=0)
    """Most that a new activation store may take, in GB of raw shards; a larger one is refused
    before the target runs. Null sets no limit."""
    step_timeout_s: float | None = Field(default=None, gt=0)
    """Most seconds that a step may take in runs on a Prefect server; null sets no limit."""
    step_retries: int = Field(default=2, ge=0)
    """How often a step whose LLM endpoint could not be reached is tried again in runs on a Prefect
    server; the wait before each retry doubles."""
    report_to: tuple[str, ...] = ()
    """Where transformers logs training besides our own log: `tensorboard`, `wandb`."""

    @model_validator(mode="after")
    def _one_copy(self) -> Runtime:
        if (self.spread or self.tensor_parallel > 1) and (self.workers or 1) > 1:
            way = "spread" if self.spread else "tensor_parallel"
            raise ValueError(
                f"workers: got {self.workers} with {way}, expected 1; all GPUs hold one model"
            )
        return self
