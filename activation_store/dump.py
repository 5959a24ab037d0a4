"""The step `dump`: conversations in, a store of the target's activations out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.config import CaptureConfig
from activation_store.layout import (
    CANARY_FILE,
    PHYSICAL,
    layer_array,
    open_arrays,
)
from activation_store.model_files import ModelFiles
from activation_store.plan import Plan, make_plan, plan_files, write_plan
from activation_store.runtime import Runtime
from activation_store.seal import write_sealed
from activation_store.spans import Tokens, tokenize
from generators.errors import ConfigError, DamagedError, DataError
from generators.files import storage_errors
from generators.progress import Progress, silent
from generators.schema import CONVERSATIONS_FILE, Conversation, Dropped, read_conversations


def dump(
    conversations: Path,
    out: Path,
    *,
    config: CaptureConfig,
    model: ModelFiles,
    runtime: Runtime,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the target once over each conversation and store its activations.

    Goes on from the committed shards that it finds in `out`, each checked against its digest.

    Args:
        conversations: folder with conversations.parquet.
        out: the store's folder.

    Returns:
        {"sequences", "tokens", "bytes", "tokens_per_second" (forward passes alone; 0 where none was
        left to do), "forward_tokens", "layers", "d_model", "store_dtype", "compute_dtype",
        "shards", "canary", "dropped": {reason: count}}.

    Raises:
        DataError: no conversation is left, or one is too long and the policy is to refuse.
        ModelError: the target cannot be loaded, or has not the layer.
        StoreError: an activation is not finite, or the canary differs.
        StorageError: the disk is full; committed shards stay.
    """
    from activation_store import canary
    from activation_store.reader import ActivationStore
    from activation_store.target import (
        load_model,
        load_tokenizer,
        model_shape,
        pick_device,
        use_threads,
    )

    use_threads(runtime)
    device = pick_device(runtime)
    shape = model_shape(model)
    layers = tuple(shape.layer(k, "dump.layers") for k in config.layers)
    if len(set(layers)) < len(layers):
        raise ConfigError(
            f"dump.layers: {list(config.layers)} names a block twice ({shape.n_blocks} blocks)."
        )
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    longest = min(config.max_tokens, shape.max_positions)
    kept, dropped = _tokenize_all(rows, load_tokenizer(model), longest, config.too_long)
    plan = make_plan(
        kept, config=config, layers=layers, d_model=shape.d_model, target=model.digests()
    )
    with storage_errors(out):
        write_plan(out, plan, dropped)
        missing = _missing(out, plan)
        net = load_model(model, dtype=config.compute_dtype, device=device)
        seconds = _fill(out, plan, kept, net, missing, progress)
        store = ActivationStore(out, cache_mb=runtime.shard_cache_mb)
        verdict = canary.check(net, store, plan, kept)
        write_sealed(out / CANARY_FILE, verdict)
    forward = sum(s.n_tokens for s in plan.sequences if s.shard in missing)
    return {
        "sequences": len(plan.sequences),
        "tokens": plan.tokens,
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "tokens_per_second": round(forward / seconds, 1) if seconds else 0.0,
        "forward_tokens": forward,
        "layers": list(layers),
        "d_model": plan.d_model,
        "store_dtype": config.store_dtype,
        "compute_dtype": config.compute_dtype,
        "shards": plan.n_shards,
        "canary": verdict,
        "dropped": _count(dropped),
    }


def _tokenize_all(
    rows: list[Conversation], tokenizer: Any, longest: int, too_long: str
) -> tuple[dict[str, Tokens], list[Dropped]]:
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
        why = dropped[0].detail if dropped else "the table is empty"
        raise DataError(f"dump: no conversation is left of {len(rows)}; the first reason: {why}")
    return kept, dropped


def _missing(out: Path, plan: Plan) -> list[int]:
    """Shards that are still to be computed; what no good shard needs is removed."""
    from activation_store.commits import broken, commit_path, commit_records, read_commit

    good = {}
    for path in commit_records(out):
        try:
            commit = read_commit(path)
        except DamagedError:
            continue  # a shard without a record is one that is not there
        if commit.plan == plan.digest and not broken(out, commit.files):
            good[commit.shard] = commit
    needed = [*plan_files(out), *(commit_path(out, shard) for shard in good)]
    needed += [out / name for commit in good.values() for name in commit.files]
    _keep_only(out, needed)
    return [shard for shard in range(plan.n_shards) if shard not in good]


def _keep_only(out: Path, needed: Iterable[Path]) -> None:
    keep = set(needed)
    for path in sorted(out.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path not in keep:
            path.unlink()


def _fill(
    out: Path,
    plan: Plan,
    rows: dict[str, Tokens],
    net: Any,
    missing: list[int],
    progress: Progress,
) -> float:
    """Compute and commit the missing shards; seconds of the forward passes."""
    from activation_store.capture import Capture, to_stored
    from activation_store.commits import commit_shard

    capture = Capture(net, plan.layers)
    arrays = open_arrays(out, plan.layers, write=True)
    total = plan.tokens
    done = total - sum(s.n_tokens for s in plan.sequences if s.shard in missing)
    seconds = 0.0
    progress(done, total, "tokens")
    for shard in missing:
        content = _empty(plan)
        base = shard * plan.shard_rows
        for batch in plan.batches(shard):
            start = time.perf_counter()
            found = capture([rows[s.example_id].ids for s in batch])
            stored = {k: to_stored(values, plan.dtype) for k, values in found.items()}
            seconds += time.perf_counter() - start
            for i, s in enumerate(batch):
                place = slice(s.row_start - base, s.row_start - base + s.n_tokens)
                content["tokens"][place] = rows[s.example_id].ids
                content["segments"][place] = rows[s.example_id].segments
                for k, values in stored.items():
                    content[layer_array(k)][place] = values[i, : s.n_tokens]
            done += sum(s.n_tokens for s in batch)
            progress(done, total, "tokens")
        commit_shard(out, plan, arrays, shard, content)
    return seconds


def _empty(plan: Plan) -> dict[str, np.ndarray]:
    wide = (plan.shard_rows, plan.d_model)
    return {
        **{layer_array(k): np.zeros(wide, PHYSICAL[plan.dtype]) for k in plan.layers},
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }


def _count(dropped: list[Dropped]) -> dict[str, int]:
    reasons = sorted({row.reason for row in dropped})
    return {reason: sum(row.reason == reason for row in dropped) for reason in reasons}
