"""The step `dump`: conversations in, a store of the target's activations out."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation_store.layout.arrays import CANARY_FILE, ROOT_FILE
from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan, make_plan, plan_files, write_plan
from activation_store.layout.sealed_json import write_sealed
from activation_store.target.files import ModelFiles
from activation_store.target.tokens import Tokens, tokenize
from activation_store.write.leases import FOLDER, Leases
from core.errors import ConfigError, DamagedError, DataError, StoreError
from core.files import storage_errors
from core.progress import Progress, silent
from core.runtime import Runtime
from core.table_files import CONVERSATIONS_FILE, read_conversations
from core.tables import Conversation, Dropped

if TYPE_CHECKING:
    from activation_store.layout.commit_records import Commit


def dump(
    conversations: Path,
    out: Path,
    *,
    config: CaptureConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
    others: Sequence[Path] = (),
) -> dict[str, Any]:
    """Run the target once over each conversation and store its activations.

    Goes on from the committed shards that it finds in `out`, each checked against its digest.
    `runtime.workers` processes write at once, and several dumps into one folder share the work;
    the bytes are the same for any number of them.

    Args:
        conversations: folder with conversations.parquet.
        out: the store's folder.
        others: finished stores, from which rows of the same target are taken over where they are
            whole (activation_store/write/reuse.py), the preferred ones first.

    Returns:
        {"sequences", "tokens", "bytes", "raw_bytes" (of all shards under the codec `raw`),
        "tokens_per_second" (of the target's, forward passes and writing; 0 where none was left to
        do), "forward_tokens", "shared_shards" (those laid out as in another store), "layers",
        "d_model", "store_dtype", "compute_dtype", "shards", "canary", "dropped": {reason: count}}.

    Raises:
        DataError: no conversation is left, or one is too long and the policy is to refuse.
        ModelError: the target cannot be loaded, or has not the layer.
        StoreError: the plan is larger than `runtime.store_gb`, an activation is not finite, or the
            canary differs.
        StorageError: the disk is full; committed shards stay.
    """
    from activation_store.layout.commit_records import shard_folders
    from activation_store.layout.root_record import write_root
    from activation_store.read.reader import ActivationStore
    from activation_store.target.load import load_model, use_threads
    from activation_store.write import canary
    from activation_store.write.reuse import Others
    from activation_store.write.workers import helpers, worker_device
    from activation_store.write.writer import Writer

    use_threads(runtime)
    device = worker_device(runtime, 0)
    plans, kept, dropped = plans_of(conversations, config, model)
    leases = Leases(out)
    with storage_errors(out):
        with leases.alone() as others_at_work:
            plan = _planned(out, plans, kept, others)
            _check_size(plan, runtime)
            write_plan(out, plan, dropped)
            missing = _missing(out, plan, sweep=not others_at_work)
        net = load_model(model, dtype=config.compute_dtype, device=device)
        start = time.perf_counter()
        with helpers(out, plan, kept, model, runtime, missing, others) as by_helpers:
            writer = Writer(
                out, plan, kept, net, others=Others(others, plan), leases=leases, progress=progress
            )
            filled = writer.fill(missing)
        seconds = time.perf_counter() - start
        if model.adapter is not None:  # merged for the dump: the second way does without that
            del writer, net
            net = load_model(model, dtype=config.compute_dtype, device=device, merged=False)
        with leases.alone():
            root = write_root(out)
            store = ActivationStore(out, cache_mb=runtime.shard_cache_mb)
            verdict = canary.check(net, store, plan, kept)
            write_sealed(out / CANARY_FILE, {**verdict, "root": root})
            files = [*_needed(out, store.commits), out / ROOT_FILE, out / CANARY_FILE]
            _keep_only(out, files, shard_folders(out, plan))
    forward = filled.computed + by_helpers()
    return {
        "sequences": len(plan.sequences),
        "tokens": plan.tokens,
        "raw_bytes": plan.raw_bytes,
        "bytes": sum(path.stat().st_size for path in files),
        "tokens_per_second": round(forward / seconds, 1),
        "forward_tokens": forward,
        "shared_shards": len(plan.shared),
        "layers": list(plan.layers),
        "d_model": plan.d_model,
        "store_dtype": config.store_dtype,
        "compute_dtype": config.compute_dtype,
        "shards": plan.n_shards,
        "canary": verdict,
        "dropped": _count(dropped),
    }


def plans_of(
    conversations: Path, config: CaptureConfig, model: ModelFiles
) -> tuple[Callable[..., Plan], dict[str, Tokens], list[Dropped]]:
    """Plans of a store of conversations, with the `shared` shards that they are called with; the
    tokens of their rows by example id; and the rows that are left out.

    Raises: as `dump`, before the target is loaded.
    """
    from activation_store.target.load import load_tokenizer, model_shape

    shape = model_shape(model)
    layers = tuple(shape.layer(k, "dump.layers") for k in config.layers)
    if len(set(layers)) < len(layers):
        raise ConfigError(
            f"dump.layers: {list(config.layers)} names a block twice ({shape.n_blocks} blocks)."
        )
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    longest = min(config.max_tokens, shape.max_positions)
    kept, dropped = tokenize_rows(rows, load_tokenizer(model), longest, config.too_long)
    plans = functools.partial(
        make_plan, kept, config=config, layers=layers, d_model=shape.d_model, target=model.digests()
    )
    return plans, kept, dropped


def _planned(
    out: Path,
    plans: Callable[..., Plan],
    rows: Mapping[str, Tokens],
    others: Sequence[Path],
) -> Plan:
    """The plan that `out` was begun with, or a new one, with whole shards of `others` in it.

    Args:
        plans: a plan with the given `shared` shards.
    """
    from activation_store.write.reuse import Others, begun

    alone = plans()
    if found := begun(out):
        digest, shared = found
        again = (
            plans(shared=shared) if all(e in rows for s in shared for e in s.examples) else alone
        )
        if again.digest == digest:
            return again
    shared = Others(others, alone).shards(alone, rows)
    return plans(shared=shared) if shared else alone


def _check_size(plan: Plan, runtime: Runtime) -> None:
    if runtime.store_gb is not None and plan.raw_bytes > runtime.store_gb * 1e9:
        raise StoreError(
            f"dump: the store takes {plan.raw_bytes / 1e9:.3f} GB under the codec raw, expected at "
            f"most {runtime.store_gb:g} (runtime.store_gb). Allow more, or read fewer layers or "
            "conversations."
        )


def tokenize_rows(
    rows: list[Conversation], tokenizer: Any, longest: int, too_long: str
) -> tuple[dict[str, Tokens], list[Dropped]]:
    """Tokens of the rows by example id, and the rows that cannot be read.

    Args:
        longest: most tokens of a row.
        too_long: `drop` or `refuse`, as in the config.

    Raises:
        DataError: a row is to be refused, or none is left.
    """
    kept: dict[str, Tokens] = {}
    dropped: list[Dropped] = []
    for row in rows:
        reason, detail = "", ""
        try:
            tokens = tokenize(tokenizer, row.messages)
        except DataError as error:
            reason, detail = "template", str(error)
        else:
            if len(tokens.ids) > longest:
                reason = "too_long"
                detail = (
                    f"{len(tokens.ids)} tokens, expected at most {longest} "
                    "(dump.max_tokens, or the model's own limit)"
                )
            if reason and too_long == "refuse":
                raise DataError(
                    f"example {row.example_id} ({row.label}, view {row.view}) has {detail}. "
                    "Raise dump.max_tokens, or set dump.too_long to drop."
                )
        if reason:
            where = f"example {row.example_id} ({row.label}, view {row.view})"
            dropped.append(Dropped(reason=reason, where=where, detail=detail, raw=row.example_id))
        else:
            kept[row.example_id] = tokens
    if not kept:
        why = f"{dropped[0].where}: {dropped[0].detail}" if dropped else "the table is empty"
        raise DataError(f"dump: no conversation is left of {len(rows)}; the first reason: {why}")
    return kept, dropped


def _missing(out: Path, plan: Plan, *, sweep: bool) -> list[int]:
    """Shards that are still to be computed.

    Records without a good shard are removed, and with `sweep` all else that no good shard needs;
    a record that was lost comes back from root.json.
    """
    from activation_store.layout.commit_records import commit_path, shard_folders, write_commits
    from activation_store.layout.file_marks import broken

    good, lost = {}, []
    for shard, commit in _recorded(out).items():
        if commit.plan == plan.digest and not broken(out, commit.files):
            good[shard] = commit
            if not commit_path(out, shard).is_file():
                lost.append(commit)
        else:
            commit_path(out, shard).unlink(missing_ok=True)
    write_commits(out, lost)
    missing = [shard for shard in range(plan.n_shards) if shard not in good]
    if sweep:
        end = [] if missing else [out / ROOT_FILE, out / CANARY_FILE]
        needed = [*_needed(out, good), *end, *(out / FOLDER).iterdir()]
        _keep_only(out, needed, shard_folders(out, plan))
    return missing


def _recorded(out: Path) -> dict[int, Commit]:
    """Commits by shard, as root.json and the records tell them; damaged records are removed."""
    from activation_store.layout.commit_records import commit_records, read_commit
    from activation_store.layout.root_record import read_root

    found: dict[int, Commit] = {}
    with contextlib.suppress(DamagedError):  # a shard without a record is one that is not there
        found.update(read_root(out)[1])
    for path in commit_records(out):
        try:
            commit = read_commit(path)
        except DamagedError:
            path.unlink()
        else:
            found[commit.shard] = commit
    return found


def _needed(out: Path, commits: Mapping[int, Commit]) -> list[Path]:
    """The files of a store with these shards committed, without root.json and canary.json."""
    from activation_store.layout.commit_records import commit_path

    shards = [out / name for commit in commits.values() for name in commit.files]
    return [*plan_files(out), *(commit_path(out, shard) for shard in commits), *shards]


def _keep_only(out: Path, needed: Iterable[Path], folders: Iterable[Path]) -> None:
    """Remove all files but those that are needed, and empty folders but those that a writer which
    begins in this moment may have made."""
    keep = {*needed, *folders}
    for path in sorted(out.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path in keep:
            continue
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        else:
            path.unlink()


def _count(dropped: list[Dropped]) -> dict[str, int]:
    reasons = sorted({row.reason for row in dropped})
    return {reason: sum(row.reason == reason for row in dropped) for reason in reasons}
