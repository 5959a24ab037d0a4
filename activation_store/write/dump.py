"""The step `dump`: run the target over conversations and store its activations."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from activation_store.layout.arrays import CANARY_FILE, ROOT_FILE
from activation_store.layout.checksummed_json import write_checksummed_json
from activation_store.layout.commit_records import (
    ShardCommit,
    commit_path,
    list_commit_paths,
    read_commit,
    shard_folders,
    write_commits,
)
from activation_store.layout.config import CaptureConfig
from activation_store.layout.file_digests import find_damage
from activation_store.layout.plan import Plan
from activation_store.layout.plan_files import plan_files, write_plan
from activation_store.layout.root_record import read_root, write_root
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.target.load import use_threads
from activation_store.target.number_format import resolve_section
from activation_store.target.tensor_parallel import run_with_shared_target
from activation_store.target.worker_devices import choose_pool
from activation_store.write.canary import CanaryResult, check_canary, check_first
from activation_store.write.capture_shards import capture_shards
from activation_store.write.prepared import plan_store, prepare_dump
from activation_store.write.reuse import ReusableStores
from activation_store.write.shard_tasks import ShardWork, write_with_pool
from core.errors import DamagedError, StoreError
from core.files import storage_errors
from core.processes.task_pool import TaskPool
from core.progress import Progress, silent
from core.runtime import Runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class DumpResult:
    """What a dump did, and the store that it made.

    Attributes:
        tokens: of all sequences.
        bytes: of all files of the store.
        raw_bytes: of all arrays under the codec `raw`.
        tokens_per_second: of the target's, forward passes and writing; 0 where none was left to do.
        forward_tokens: tokens that the target was run on.
        shared_shards: shards that are laid out as in another store.
        dropped: conversations left out, by reason.
    """

    sequences: int
    tokens: int
    bytes: int
    raw_bytes: int
    tokens_per_second: float
    forward_tokens: int
    shared_shards: int
    layers: tuple[int, ...]
    d_model: int
    store_dtype: str
    compute_dtype: str
    shards: int
    canary: CanaryResult
    dropped: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "layers": list(self.layers)}


def dump(
    conversations: Path,
    out: Path,
    *,
    config: CaptureConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
    reusable: Sequence[Path] = (),
    pool: TaskPool | None = None,
) -> DumpResult:
    """Run the target once over each conversation and store its activations.

    Goes on from the committed shards in `out`, each checked against its digest. The bytes are the
    same whatever pool shards are computed in. The caller keeps two dumps into one folder apart.

    Args:
        conversations: folder with conversations.parquet.
        out: the store's folder.
        config: what is kept, and how.
        model: the target.
        runtime: device, threads, workers.
        progress: told the tokens that are done.
        reusable: finished stores, from which rows of the same target are taken over where they are
            whole (activation_store/write/reuse.py), the preferred ones first.
        pool: runs groups of shards; None for that of `runtime`.

    Raises:
        DataError: no conversation is left, or one is too long and the policy is to refuse.
        ModelError: the target cannot be loaded, or has not the layer.
        StoreError: the plan is larger than `runtime.store_gb`, an activation is not finite, or the
            canary differs.
        StorageError: the disk is full; committed shards stay.
    """
    work = functools.partial(
        _dump, conversations, out, config=config, model=model, reusable=reusable
    )
    if runtime.tensor_parallel > 1:
        return run_with_shared_target(work, runtime=runtime, progress=progress)
    return work(runtime=runtime, progress=progress, pool=pool)


def _dump(
    conversations: Path,
    out: Path,
    *,
    config: CaptureConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress,
    reusable: Sequence[Path],
    pool: TaskPool | None = None,
) -> DumpResult:
    """Dump in this process; the target may be shared with others."""
    use_threads(runtime)
    config = resolve_section(config, runtime)
    prepared = prepare_dump(conversations, config, model, scratch=out.parent)
    with storage_errors(out):
        plan = plan_store(out, prepared, reusable)
        _check_size(plan, runtime)
        write_plan(out, plan, prepared.tokens, prepared.dropped)
        missing = _find_missing_shards(out, plan)
        done = plan.tokens - sum(map(plan.shard_tokens, missing))

        def report_tokens(tokens: int) -> None:
            nonlocal done
            done += tokens
            progress(done, plan.tokens, "tokens")

        report_tokens(0)
        work = ShardWork(
            out=out,
            plan=plan,
            prepared=prepared,
            model=model,
            runtime=runtime,
            reusable=reusable,
        )
        net = work.load_target()
        if missing:
            check_first(net, plan, prepared.tokens)
        start = time.perf_counter()
        pool, forward_tokens = choose_pool(runtime, pool), 0
        if pool.workers > 1 and len(missing) > 1:
            del net  # one of the pool takes its place on the device
            torch.cuda.empty_cache()
            forward_tokens = write_with_pool(work, missing, pool, report_tokens)
            net = work.load_target()
        forward_tokens += capture_shards(
            plan,
            missing,
            out=out,
            tokens=prepared.tokens,
            net=net,
            reusable=ReusableStores(reusable, plan),
            report_tokens=report_tokens,
        )
        seconds = time.perf_counter() - start
        if model.adapter is not None:  # merged for the dump: the canary uses it unmerged
            del net
            net = work.load_target(merged=False)
        root = write_root(out)
        store = ActivationStore(out, cache_mb=runtime.shard_cache_mb)
        canary = check_canary(net, store, plan, prepared.tokens)
        write_checksummed_json(out / CANARY_FILE, {**asdict(canary), "root": root})
        files = [*_needed_files(out, store.commits), out / ROOT_FILE, out / CANARY_FILE]
        _remove_others(out, files, shard_folders(out, plan))
    return DumpResult(
        sequences=len(plan.index),
        tokens=plan.tokens,
        raw_bytes=plan.raw_bytes,
        bytes=sum(path.stat().st_size for path in files),
        tokens_per_second=round(forward_tokens / seconds, 1),
        forward_tokens=forward_tokens,
        shared_shards=len(plan.shared),
        layers=plan.layers,
        d_model=plan.d_model,
        store_dtype=config.store_dtype,
        compute_dtype=config.compute_dtype,
        shards=plan.n_shards,
        canary=canary,
        dropped=dict(sorted(Counter(row.reason for row in prepared.dropped).items())),
    )


def _check_size(plan: Plan, runtime: Runtime) -> None:
    if runtime.store_gb is not None and plan.raw_bytes > runtime.store_gb * 1e9:
        raise StoreError(
            f"dump: the store takes {plan.raw_bytes / 1e9:.3f} GB under the codec raw, expected at "
            f"most {runtime.store_gb:g} (runtime.store_gb). Allow more, or read fewer layers or "
            "conversations."
        )


def _find_missing_shards(out: Path, plan: Plan) -> list[int]:
    """Return the shards that are still to be computed; remove what no good shard needs.

    A record that was lost comes back from root.json.
    """
    good, lost = {}, []
    for shard, commit in _recorded_commits(out).items():
        if commit.plan == plan.digest and not find_damage(out, commit.files):
            good[shard] = commit
            if not commit_path(out, shard).is_file():
                lost.append(commit)
        else:
            commit_path(out, shard).unlink(missing_ok=True)
    write_commits(out, lost)
    missing = [shard for shard in range(plan.n_shards) if shard not in good]
    end = [] if missing else [out / ROOT_FILE, out / CANARY_FILE]
    _remove_others(out, [*_needed_files(out, good), *end], shard_folders(out, plan))
    return missing


def _recorded_commits(out: Path) -> dict[int, ShardCommit]:
    """Read commits from root.json and the records; remove damaged records."""
    found: dict[int, ShardCommit] = {}
    with contextlib.suppress(DamagedError):  # a shard without a record is one that is not there
        found.update(read_root(out)[1])
    for path in list_commit_paths(out):
        try:
            commit = read_commit(path)
        except DamagedError:
            path.unlink()
        else:
            found[commit.shard] = commit
    return found


def _needed_files(out: Path, commits: Mapping[int, ShardCommit]) -> list[Path]:
    """Return the files of a store with these commits, without root.json and canary.json."""
    shards = [out / name for commit in commits.values() for name in commit.files]
    return [*plan_files(out), *(commit_path(out, shard) for shard in commits), *shards]


def _remove_others(out: Path, needed: Iterable[Path], folders: Iterable[Path]) -> None:
    """Remove all files below `out` but those needed, and empty folders but those of shards."""
    keep = {*needed, *folders}
    for path in sorted(out.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path in keep:
            continue
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        else:
            path.unlink()
