"""Writers in processes of their own, each with the target in memory, beside the one that asks."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch

from activation_store.layout.plan import Plan
from activation_store.target.files import ModelFiles
from activation_store.target.load import load_model, pick_device, use_threads
from activation_store.target.tokens import Tokens
from activation_store.write.reuse import Others
from activation_store.write.writer import Writer
from core.errors import LatentQAError
from core.runtime import Runtime

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def helpers(
    out: Path,
    plan: Plan,
    rows: Mapping[str, Tokens],
    model: ModelFiles,
    runtime: Runtime,
    missing: Sequence[int],
    others: Sequence[Path] = (),
) -> Iterator[Callable[[], int]]:
    """`runtime.workers` - 1 processes that write shards while the body does the same.

    At the body's end they are waited for; where it raises, they are ended. A writer that fails is
    told in the log, and its shard falls to the others, which meet the same error or do the work.

    Yields:
        How many tokens they ran the target on for shards that they committed; whole after the body.
    """
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    n = min(runtime.workers, len(missing)) - 1
    computed = context.Value("q", 0)
    started: list[BaseProcess] = []
    try:
        for i in range(1, n + 1):
            child = context.Process(
                target=_write,
                args=(i, out, plan, rows, model, runtime, missing, others, computed),
                daemon=True,
            )
            child.start()
            started.append(child)
        yield lambda: computed.value
        for process in started:
            process.join()
            if process.exitcode:
                _LOG.warning("store %s: a writer ended with code %s.", out, process.exitcode)
    finally:
        for process in started:
            if process.is_alive():
                process.terminate()
            process.join()


def worker_device(runtime: Runtime, number: int) -> torch.device:
    """Device of writer `number`: one GPU each, in turns, unless `runtime.device` names one.

    Raises:
        ConfigError: `runtime.device` is not here.
    """
    device = pick_device(runtime)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def _write(
    number: int,
    out: Path,
    plan: Plan,
    rows: Mapping[str, Tokens],
    model: ModelFiles,
    runtime: Runtime,
    missing: Sequence[int],
    others: Sequence[Path],
    computed: Synchronized[int],
) -> None:
    parent = multiprocessing.parent_process()
    use_threads(runtime)
    try:
        net = load_model(model, dtype=plan.compute_dtype, device=worker_device(runtime, number))
        writer = Writer(out, plan, rows, net, others=Others(others, plan))
        try:
            writer.fill(missing, wanted=lambda: parent is None or parent.is_alive())
        finally:
            with computed.get_lock():
                computed.value += writer.filled.computed
    except LatentQAError as error:
        raise SystemExit(f"writer {number} of {out}: {error}") from error
