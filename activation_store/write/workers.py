"""Writers in processes of their own, each with the target in memory, and the hand-out of shards."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from torch import nn

from activation_store.layout.commit_records import commit_path
from activation_store.layout.plan import Plan
from activation_store.target.files import ModelFiles
from activation_store.target.load import load_model, pick_device, use_threads
from activation_store.target.token_table import TokenTable
from activation_store.write.reuse import ReusableStores
from activation_store.write.writer import WriteCounts, write_shards
from core.errors import LatentQAError
from core.runtime import Runtime

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteJob:
    """All that a writer needs beside the target in memory; it can be sent to another process.

    Attributes:
        out: the store's folder, with its plan written.
        tokens: the sequences' tokens by example id.
        model: the target.
        reusable: finished stores from which rows are taken over.
    """

    out: Path
    plan: Plan
    tokens: TokenTable
    model: ModelFiles
    runtime: Runtime
    reusable: Sequence[Path] = ()


def write_with_workers(
    job: WriteJob,
    shards: Sequence[int],
    net: nn.Module,
    report_tokens: Callable[[int], object] = int,
) -> WriteCounts:
    """Compute and commit shards in this process and in `runtime.workers` - 1 others.

    A thread hands out one shard at a time. A worker that fails is told in the log; this process
    then writes what is left, and so meets the same error or does the work.

    Args:
        job: the store.
        shards: numbers of the shards that are not committed.
        net: the target, in this process.
        report_tokens: called with tokens that are done, from two threads.

    Raises: as `write_shards`.
    """

    def write(own: Iterator[int]) -> WriteCounts:
        return write_shards(
            job.plan,
            own,
            out=job.out,
            tokens=job.tokens,
            net=net,
            reusable=ReusableStores(job.reusable, job.plan),
            report_tokens=report_tokens,
        )

    n_workers = min(job.runtime.workers, len(shards)) - 1
    if n_workers < 1:
        return write(iter(shards))
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    for shard in shards:
        pending.put(shard)
    found: list[WriteCounts] = []
    pipes, processes = _start(job, n_workers)
    arguments = (job.plan, pending, pipes, found, report_tokens)
    server = threading.Thread(target=_hand_out, args=arguments, daemon=True)
    try:
        server.start()
        found.append(write(_drain(pending)))
        for process in processes:
            process.join()
            if process.exitcode:
                _LOG.warning("store %s: a worker ended with code %s.", job.out, process.exitcode)
        server.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()
    lost = [shard for shard in shards if not commit_path(job.out, shard).exists()]
    return sum([*found, write(iter(lost))], WriteCounts())


def worker_device(runtime: Runtime, number: int) -> torch.device:
    """Return the device of writer `number`: one GPU each, in turns, unless `runtime` names one.

    Raises:
        ConfigError: `runtime.device` is not here.
    """
    device = pick_device(runtime)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", number % torch.cuda.device_count())
    return device


def _start(job: WriteJob, n_workers: int) -> tuple[list[Connection], list[BaseProcess]]:
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    pipes, processes = list[Connection](), list[BaseProcess]()
    for number in range(1, n_workers + 1):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(number, job, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of the worker is the end of the pipe
        pipes.append(ours)
        processes.append(process)
    return pipes, processes


def _drain(pending: queue.SimpleQueue[int]) -> Iterator[int]:
    while True:
        try:
            yield pending.get_nowait()
        except queue.Empty:
            return


def _hand_out(
    plan: Plan,
    pending: queue.SimpleQueue[int],
    pipes: list[Connection],
    found: list[WriteCounts],
    report_tokens: Callable[[int], object],
) -> None:
    """Answer each request of a worker with a shard, or None; keep the counts that it ends with."""
    shards = _drain(pending)
    computed: dict[Connection, int] = {}
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            try:
                request = pipe.recv()
            except (EOFError, OSError):  # the worker has ended
                pipes.remove(pipe)
                continue
            if isinstance(request, WriteCounts):
                found.append(request)
                continue
            if (before := computed.pop(pipe, None)) is not None:
                report_tokens(plan.shard_tokens(before))
            shard = next(shards, None)
            with contextlib.suppress(OSError):  # it has ended; the next turn sees that
                pipe.send(shard)
            if shard is not None:
                computed[pipe] = shard


def _work(number: int, job: WriteJob, pipe: Connection) -> None:
    """Write the shards that are handed out to worker `number`, until there are none."""

    def handed_out() -> Iterator[int]:
        while True:
            pipe.send(None)
            shard = pipe.recv()
            if shard is None:
                return
            yield shard

    use_threads(job.runtime)
    try:
        device = worker_device(job.runtime, number)
        counts = write_shards(
            job.plan,
            handed_out(),
            out=job.out,
            tokens=job.tokens,
            net=load_model(job.model, dtype=job.plan.compute_dtype, device=device),
            reusable=ReusableStores(job.reusable, job.plan),
        )
        pipe.send(counts)
    except LatentQAError as error:
        raise SystemExit(f"worker {number} of {job.out}: {error}") from error
    except (EOFError, BrokenPipeError) as error:
        raise SystemExit(f"worker {number} of {job.out}: the dump has ended.") from error
