"""Runtime settings change how fast and where a step runs, never its result; they are not hashed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.config import Config


class Runtime(Config):
    """Device, workers and other settings that change speed and place but not results."""

    device: str = "auto"
    """Where models run: `auto` (CUDA, then MPS, then CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of torch; null keeps torch's default. A dump on a CPU divides them among up to
    four concurrent forward passes."""
    workers: int | None = Field(default=None, ge=1, le=1024)
    """Concurrent tasks: shards of an activation store, requests to an LLM endpoint, points of a
    sweep. Each task has its own process with `threads` CPU threads and, if it needs a model, its
    own copy of it and its own GPU. Null is 1, and one per GPU for the shards of a store, batches of
    replies and slices of an evaluation."""
    task_runner: Literal["processes", "threads"] = "processes"
    """How concurrent tasks run (`workers` above 1): `processes` is a pool of processes that run
    several tasks each; `threads` starts a new process for each task. On a Prefect server these
    select the task runner."""
    processes: int | None = Field(default=None, ge=1, le=1024)
    """Processes that train together, each with its own GPU or with `threads` CPU threads; they
    share `train.rows_per_batch`. Null is one per GPU, as far as they divide that number; 1 without
    several GPUs, and where `workers` is set."""
    sharding: Literal["none", "full"] = "none"
    """How processes that train together hold the base's weights: `none` keeps a full copy in each;
    `full` keeps a share in each and gathers block by block, for a base too large for one device."""
    attn_implementation: str | None = None
    """Attention implementation of transformers (`sdpa`, `eager`, `flash_attention_2`, ...); null
    keeps its default, mostly `sdpa`. Flash attention takes no mask, so a decoder's rows are not
    packed with it, and each question extends the cached keys and values of its prefix."""
    spread: bool = False
    """Whether a model is spread over all GPUs of the machine, some blocks on each, because it is
    too large for one: in dump, complete, evaluate, robustness, tasks and control. For training use
    `sharding`."""
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    """Processes that share the target in a dump, each with one GPU and a share of every weight
    (transformers' `tp_plan`), so that all GPUs compute at once; for a target without an adapter
    that is too large for one GPU. Other steps can use `spread`."""
    checkpointing: bool = False
    """Whether training recomputes activations in the backward pass (gradient checkpointing): much
    less memory, about a third more time, the same result. Only for decoders whose rows are
    packed."""
    concurrency: int = Field(default=256, ge=1)
    """Most concurrent LLM requests; the number in use adapts to the endpoint's limits. The embedded
    generator takes 4."""
    shard_cache_mb: int = Field(default=512, ge=16)
    """Memory for decoded shards of the activation store, in MiB."""
    reuse_rows: bool = True
    """Whether activations are copied from other stores of the same target in the artifact root
    instead of being computed again."""
    store_gb: float | None = Field(default=None, gt=0)
    """Largest size of a new activation store, in GB of raw shards; a larger one is refused before
    the target runs. Null sets no limit."""
    step_timeout_s: float | None = Field(default=None, gt=0)
    """Longest duration of a step on a Prefect server, in seconds; null sets no limit."""
    step_retries: int = Field(default=2, ge=0, le=50)
    """Retries on a Prefect server of a step whose LLM endpoint could not be reached; the wait
    doubles before each."""
    report_to: tuple[str, ...] = ()
    """Further places to which transformers logs training: `tensorboard`, `wandb`."""

    @model_validator(mode="after")
    def _one_copy(self) -> Runtime:
        if (self.spread or self.tensor_parallel > 1) and (self.workers or 1) > 1:
            way = "spread" if self.spread else "tensor_parallel"
            raise ValueError(
                f"workers: got {self.workers} together with {way}, expected 1, because all "
                "GPUs share one model"
            )
        return self
