"""The step `dump`: conversations in, a store of the target's activations out."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.config import CaptureConfig
from activation_store.layout import (
    CANARY_FILE,
    COMMITS,
    INDEX_FILE,
    PHYSICAL,
    PLAN_FILE,
    array_names,
    create_arrays,
    layer_array,
    open_arrays,
    shard_file,
)
from activation_store.model_files import ModelFiles
from activation_store.plan import Plan, make_plan, write_plan
from activation_store.runtime import Runtime
from activation_store.spans import Tokens, tokenize
from generators.errors import DamagedError, DataError, StoreError
from generators.files import storage_errors, write_json
from generators.progress import Progress, silent
from generators.schema import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    Conversation,
    Dropped,
    read_conversations,
    write_dropped,
)


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
        layer_index,
        load_model,
        load_tokenizer,
        pick_device,
        use_threads,
    )

    use_threads(runtime)
    rows = read_conversations(conversations / CONVERSATIONS_FILE)
    kept, dropped = _tokenize_all(rows, load_tokenizer(model), config)
    shape = model.config()
    n_blocks, d_model = shape["num_hidden_layers"], shape["hidden_size"]
    layers = tuple(layer_index(k, n_blocks, model.ref) for k in config.layers)
    plan = make_plan(kept, config=config, layers=layers, d_model=d_model, target=model.digests())
    with storage_errors(out):
        _prepare(out, plan)
        write_dropped(out / DROPPED_FILE, dropped)
        missing = _missing(out, plan)
        net = load_model(model, dtype=config.compute_dtype, device=pick_device(runtime))
        seconds = _fill(out, plan, kept, net, missing, progress)
        store = ActivationStore(out, cache_mb=runtime.shard_cache_mb)
        verdict = canary.check(net, store, plan)
        write_json(out / CANARY_FILE, verdict)
        _sweep(out, plan)
    forward = sum(s.n_tokens for s in plan.sequences if s.shard in missing)
    return {
        "sequences": len(plan.sequences),
        "tokens": plan.tokens,
        "bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "tokens_per_second": round(forward / seconds, 1) if seconds else 0.0,
        "forward_tokens": forward,
        "layers": list(layers),
        "d_model": d_model,
        "store_dtype": config.store_dtype,
        "compute_dtype": config.compute_dtype,
        "shards": plan.n_shards,
        "canary": verdict,
        "dropped": _count(dropped),
    }


def _tokenize_all(
    rows: list[Conversation], tokenizer: Any, config: CaptureConfig
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
            if len(tokens.ids) > config.max_tokens:
                reason = "too_long"
                detail = f"{len(tokens.ids)} tokens, at most {config.max_tokens} (dump.max_tokens)"
            if reason and config.too_long == "refuse":
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


def _prepare(out: Path, plan: Plan) -> None:
    try:
        same = json.loads((out / PLAN_FILE).read_bytes())["digest"] == plan.digest
    except (FileNotFoundError, ValueError, KeyError):
        same = False
    if not same or not _opens(out, plan):
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        create_arrays(
            out,
            rows=plan.n_shards * plan.shard_rows,
            d_model=plan.d_model,
            layers=plan.layers,
            dtype=plan.dtype,
            shard_rows=plan.shard_rows,
            chunk_rows=plan.chunk_rows,
        )
    write_plan(out, plan)  # also where it is there: the index beside it may be damaged


def _opens(out: Path, plan: Plan) -> bool:
    """Whether the arrays' metadata is there and as the plan has it."""
    try:
        arrays = open_arrays(out, plan.layers)
    except StoreError:
        return False
    rows = plan.n_shards * plan.shard_rows
    return all(
        array.shape[0] == rows and array.shards[0] == plan.shard_rows for array in arrays.values()
    )


def _missing(out: Path, plan: Plan) -> list[int]:
    from activation_store.commits import broken_files, commit_path, read_commits

    while True:
        try:
            commits = read_commits(out)
            break
        except DamagedError as error:
            error.path.unlink()  # a shard without a record is one that is not there
    for shard, commit in list(commits.items()):
        if shard >= plan.n_shards or broken_files(out, commit):
            commit_path(out, shard).unlink()
            del commits[shard]
    return [shard for shard in range(plan.n_shards) if shard not in commits]


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
    total = sum(s.n_tokens for s in plan.sequences)
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


def _sweep(out: Path, plan: Plan) -> None:
    """Remove what a killed writer left: files that no plan knows."""
    known = {out / name for name in (PLAN_FILE, INDEX_FILE, CANARY_FILE, DROPPED_FILE, "zarr.json")}
    known |= {out / "acts" / "zarr.json"}
    for name in array_names(plan.layers):
        known.add(out / name / "zarr.json")
        known |= {out / shard_file(name, shard) for shard in range(plan.n_shards)}
    known |= {out / COMMITS / f"{shard:06d}.json" for shard in range(plan.n_shards)}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path not in known:
            path.unlink()


def _count(dropped: list[Dropped]) -> dict[str, int]:
    reasons = sorted({row.reason for row in dropped})
    return {reason: sum(row.reason == reason for row in dropped) for reason in reasons}
