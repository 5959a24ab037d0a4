"""A target whose weights are shared among processes, which compute at the same time.

Each process holds a share of every weight, cut by the model's own plan in transformers (tensor
parallelism, `tp_plan`). The first process drives: it broadcasts what it loads and runs, and the
others do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from activation_store.model_files.files import ModelFiles
from activation_store.target.load import load_model, pick_device
from core.errors import ModelError
from core.processes.launch import run_distributed
from core.progress import Progress
from core.runtime import Runtime

T = TypeVar("T")


def run_with_shared_target(work: Callable[..., T], *, runtime: Runtime, progress: Progress) -> T:
    """Run `work` in the first of `runtime.tensor_parallel` processes.

    Args:
        work: takes `runtime` and `progress`, and loads targets by `load_shared`; picklable.
        runtime: the number of processes, and their device.
        progress: receives the progress of `work`.

    Raises:
        LatentQAError: what one of the processes raised.
        RuntimeError: one of them died.
    """
    found = run_distributed(
        _join, runtime.tensor_parallel, work, runtime=runtime, progress=progress
    )
    return cast(T, found)  # the others alone return None


def _join(work: Callable[..., T], *, runtime: Runtime, progress: Progress) -> T | None:
    # broadcasts go between CPUs, so that no device is waited for
    on_gpu = pick_device(runtime).type == "cuda"
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        if dist.get_rank() > 0:
            _follow()
            return None
        try:
            return work(runtime=runtime, progress=progress)
        finally:
            _tell(None)
    finally:
        dist.destroy_process_group()


def load_shared(model: ModelFiles, *, dtype: str, runtime: Runtime, first_blocks: int) -> nn.Module:
    """Load a share of the target in each process, and return the first process's.

    A pass of it is a pass of all of them, to its end: they meet in every block.

    Raises:
        ModelError: it has an adapter, transformers has no plan for it, or it cannot be loaded.
    """
    if model.adapter is not None:
        raise ModelError(
            f"model {model.ref}: its adapter cannot be merged into weights that are shared out. "
            "Merge it into the model first, or leave runtime.tensor_parallel at 1."
        )
    settings: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "runtime": runtime,
        "first_blocks": first_blocks,
    }
    _tell(settings)
    net = _load(**settings)

    def lead(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        _tell(tuple(args[0].shape))
        dist.broadcast(args[0], src=0)
        return args, {**kwargs, **_ONE_LOGIT}

    net.register_forward_pre_hook(lead, with_kwargs=True)
    return net


_ONE_LOGIT = {"logits_to_keep": 1}
"""Activations are what is wanted: the head runs on one token."""


def _load(*, runtime: Runtime, **settings: Any) -> nn.Module:
    device = pick_device(runtime)
    if device.type == "cuda":
        device = torch.device("cuda", dist.get_rank())
        torch.cuda.set_device(device)
    return load_model(**settings, device=device, runtime=runtime, tensor_parallel=True)


def _follow() -> None:
    """Load and run what the first process does, until it is done."""
    net: nn.Module | None = None
    while (told := _hear()) is not None:
        if isinstance(told, dict):
            net = None  # its memory is free before the next is loaded
            net = _load(**told)
            continue
        assert net is not None
        ids = torch.empty(told, dtype=torch.long, device=next(net.parameters()).device)
        dist.broadcast(ids, src=0)
        with torch.no_grad():
            net(ids, use_cache=False, **_ONE_LOGIT)


def _tell(told: Any) -> None:
    dist.broadcast_object_list([told], src=0, device=torch.device("cpu"))


def _hear() -> Any:
    told = [None]
    dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    return told[0]
