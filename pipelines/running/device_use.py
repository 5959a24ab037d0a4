"""How the steps of an experiment use the GPUs of a machine, in words."""

from __future__ import annotations

from core.runtime import Runtime


def find_devices(runtime: Runtime) -> str:
    """Say which steps use which devices of this machine.

    Raises:
        ConfigError: `runtime.device` is not here.
    """
    import torch

    from activation_store.target.load import pick_device

    return describe_devices(runtime, str(pick_device(runtime)), torch.cuda.device_count())


def describe_devices(runtime: Runtime, device: str, gpus: int) -> str:
    """Say which steps use which devices.

    Args:
        runtime: of the experiment.
        device: on which it runs a model: `cpu`, `cuda` for any GPU, `cuda:1` for that one.
        gpus: of the machine.
    """
    if device != "cuda":
        several = f"; {runtime.workers} workers have a model each" if runtime.workers else ""
        return f"every step on {device}{several}"
    return f"{gpus} GPU{'' if gpus == 1 else 's'}: {'; '.join(_uses(runtime, gpus))}"


def _uses(runtime: Runtime, gpus: int) -> list[str]:
    uses = []
    if runtime.tensor_parallel > 1:
        uses.append(f"dump shares one model among {runtime.tensor_parallel}")
    if runtime.spread:
        named = "" if runtime.tensor_parallel > 1 else "dump, "
        uses.append(f"{named}complete, evaluate, robustness, tasks and control spread it over all")
    elif runtime.tensor_parallel == 1:
        if runtime.workers is None:
            each = " on each, with a model of its own" if gpus > 1 else ""
            uses.append(f"complete, dump and evaluate{each}")
        else:
            uses.append(f"complete and dump in {runtime.workers} processes with a model each")
    shared = ", which share the weights" if runtime.sharding == "full" else ""
    if runtime.processes is None and gpus > 1 and runtime.workers is None:
        uses.append(f"train on as many as divide train.rows_per_batch{shared}")
    else:
        uses.append(f"train on {runtime.processes or 1} (runtime.processes){shared}")
    if not runtime.spread:
        uses.append("all else on one")
    return uses
