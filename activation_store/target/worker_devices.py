"""Pieces of a step in processes that have a model and a device each: all GPUs by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.target.load import pick_device
from activation_store.tokens.config import TemplateConfig
from core.processes.task_pool import LocalPool, TaskPool, local_pool
from core.runtime import Runtime


def choose_pool(runtime: Runtime, given: TaskPool | None) -> TaskPool:
    """Return the pool in which pieces that need a model are computed.

    Args:
        runtime: where it names neither workers nor a GPU, nor shares a model among GPUs, there is a
            process for each GPU of the machine.
        given: the pool otherwise; None for that of `runtime`.
    """
    gpus = _free_gpus(runtime)
    if gpus > 1 and not runtime.spread and runtime.tensor_parallel == 1:
        return LocalPool(gpus)
    return given or local_pool(runtime)


def training_processes(runtime: Runtime, rows_per_batch: int) -> int:
    """Return the number of processes that train together.

    Args:
        runtime: where it names none, there is one for each GPU of the machine, as far as they share
            the rows of a batch evenly.
        rows_per_batch: over all processes.
    """
    if runtime.processes is not None:
        return runtime.processes
    most = max(1, _free_gpus(runtime))
    return max(n for n in range(1, most + 1) if rows_per_batch % n == 0)


def _free_gpus(runtime: Runtime) -> int:
    """Return the number of GPUs among which work is shared; 0 where `runtime` names its place.

    With `workers`, this process may be one of those, such as a point of a sweep.
    """
    device = pick_device(runtime)
    named = runtime.workers is not None or device.type != "cuda" or device.index is not None
    return 0 if named else torch.cuda.device_count()


def worker_device(runtime: Runtime, number: int) -> torch.device:
    """Return the device of process `number`: one GPU each, in turns, unless `runtime` names one.

    Raises:
        ConfigError: `runtime.device` is not here.
    """
    device = pick_device(runtime)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def plain_model(model: ModelFiles) -> dict[str, Any]:
    """Return what another process finds a model by, as plain values."""
    return {
        "ref": str(model.source.resolve()),
        "adapter": None if model.adapter is None else str(model.adapter.resolve()),
        "template": model.template.model_dump(mode="json"),
        "trust_remote_code": model.trust_remote_code,
        "digests": model.digests(),
    }


def find_model(plain: Mapping[str, Any]) -> ModelFiles:
    """Find a model by what `plain_model` returned; a step that loads it compares its files.

    Raises:
        ModelError: it is not there any more.
    """
    found = resolve_model(
        plain["ref"],
        plain["adapter"],
        template=TemplateConfig.model_validate(plain["template"]),
        trust_remote_code=plain["trust_remote_code"],
    )
    found.expect(plain["digests"])
    return found
