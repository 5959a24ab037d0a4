"""Speed of the activation store, relative to its lower bounds and to other formats.

Capture against bare forward passes over the same batches. Then, on made-up activations of the same
width and without the model: raw writing against a sequential write with fsync of the same bytes;
whole sequences in random order against numpy.memmap and Zarr's row lists; the same rows as one
safetensors file a sample and as SAELens caches them; and through zarr in contiguous slices. Medians
of several rounds, taken in turns in one run; prints Markdown tables.

    python benchmarks/store.py --model embedded --tokens 30000
    python benchmarks/store.py --random 4x64 --tokens 200000       # a tiny model, made here
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from store_bench import (
    Times,
    captured,
    emptied,
    in_turns,
    lengths,
    made_content,
    planned,
    recycled,
    sequences,
    target,
    touched,
    uncached,
)
from store_rivals import rivals
from store_zarr import zarr_table
from torch import nn

from activation_store.layout.arrays import array_file, layer_array, open_arrays
from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan
from activation_store.layout.plan_files import write_plan, write_tokens
from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture
from activation_store.target.load import blocks
from activation_store.tokens.token_table import TokenTable
from activation_store.write.shard_writer import ShardWriter
from core.files import fsync_file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--random", help="BLOCKSxD_MODEL: a random model in place of --model")
    parser.add_argument("--tokens", type=int, default=30_000, help="of the capture")
    parser.add_argument("--rounds", type=int, default=5, help="of the capture")
    parser.add_argument("--shards", type=int, default=24, help="that are written and read")
    parser.add_argument("--more-rounds", type=int, default=15, help="of writing and reading")
    parser.add_argument("--folder", type=Path, help="where to write; a folder on the disk in mind")
    words = parser.parse_args()
    name, net, tokenizer, shape = target(words.model, words.random)
    rows = sequences(tokenizer, words.tokens, shape.max_positions)
    plan = planned(rows, (shape.n_blocks // 2 - 1,), shape.d_model)
    print(
        f"{name}, {plan.tokens} tokens in {len(rows)} sequences, {plan.n_shards} shards; "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {words.rounds} rounds\n"
    )
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        root = Path(folder)
        capture_table(root / "store", plan, rows, net, words.rounds)
        shard_rows, _ = CaptureConfig().shard_and_chunk_rows(shape.d_model)
        rows = lengths(words.shards * shard_rows)
        plan = planned(rows, plan.layers, shape.d_model)
        print(
            f"{plan.n_shards} shards of {plan.shard_rows} rows, "
            f"{plan.raw_bytes / 1e6:.0f} MB; {words.more_rounds} rounds\n"
        )
        writing_table(root, plan, rows, words.more_rounds)
        spans_table(root / "written", plan, words.more_rounds)
        zarr_table(emptied(root / "zarr"), plan, rows, max(1, words.more_rounds // 3))


def capture_table(root: Path, plan: Plan, rows: TokenTable, net: nn.Module, rounds: int) -> None:
    """Tokens per second of capture (written and committed) and of bare forward passes."""
    batches = [
        [rows[s.example_id].ids for s in batch]
        for shard in range(plan.n_shards)
        for batch in plan.batches(shard)
    ]
    padded = [_padded(batch, net) for batch in batches]
    capture = Capture(net, plan.layers)
    trials = (root / f"trial{i}" for i in itertools.count())
    out = root

    def bare() -> None:
        with torch.inference_mode():
            for ids in padded:
                net(ids, use_cache=False)

    @contextlib.contextmanager
    def cut() -> Iterator[nn.Module]:
        """Return the decoder without what no store of this plan needs."""
        decoder = net.get_decoder()
        whole, norm = decoder.layers, decoder.norm
        decoder.layers, decoder.norm = whole[: max(plan.layers) + 1], nn.Identity()
        try:
            yield decoder
        finally:
            decoder.layers, decoder.norm = whole, norm

    def truncated() -> None:
        with cut() as decoder, torch.inference_mode():
            for ids in padded:
                decoder(ids, use_cache=False)

    def not_kept() -> None:
        for batch in batches:
            capture(batch)

    def before() -> None:
        nonlocal out
        if out.exists():
            _empty_files(out)
        out = emptied(next(trials))
        os.sync()
        recycled(root / "recycled", 1 << 30)

    depth = f"{max(plan.layers) + 1} of {len(blocks(net))} blocks"
    first, whole = f"bare forward, {depth}", "bare forward, whole"
    times = in_turns(
        {
            first: truncated,
            f"capture, {depth}, not kept": not_kept,
            f"capture, {depth}, into a committed store": lambda: captured(out, plan, rows, net),
            whole: bare,
        },
        rounds,
        before=before,
        fewer={whole: max(2, rounds // 4)},
    )
    print("| what | tokens/s | of bare truncated | of bare whole |\n|---|---|---|---|")
    for name in times:
        rate = plan.tokens / times.seconds(name)
        print(f"| {name} | {rate:.0f} | {times.ratio(name, first):.2f} ", end="")
        print(f"| {times.ratio(name, whole):.2f} |")
    print()
    shutil.rmtree(root)


def writing_table(root: Path, plan: Plan, rows: TokenTable, rounds: int) -> None:
    """Time committing filled shards, and writing the same bytes with fsync. A store is left there.

    Every trial has folders of its own, and its files stay till the end, emptied: a file system
    looks long for the number of a new file where many were just removed.
    """
    contents = [made_content(plan, seed) for seed in range(4)]
    files = [b"".join(values.tobytes() for values in content.values()) for content in contents]
    tokens = bytes(plan.token_bytes)
    trials = (root / f"trial{i}" for i in itertools.count())
    out, plain = root / "written", root / "plain"

    def content_of(shard: int) -> int:
        return shard % len(contents)

    def before() -> None:
        nonlocal out, plain
        for folder in (out, plain):
            _empty_files(folder)
        trial = next(trials)
        out, plain = emptied(trial / "written"), emptied(trial / "plain")
        write_plan(out, plan, rows)
        os.sync()  # what was written before is no part of what comes
        touched(2 * plan.raw_bytes)

    def commit() -> None:
        write_tokens(out, plan, rows)
        with ShardWriter(out, plan) as writer:
            for shard in range(plan.n_shards):
                writer.submit(shard, contents[content_of(shard)])

    def file_each() -> None:
        for shard in range(plan.n_shards):
            (plain / str(shard)).write_bytes(files[content_of(shard)])
            fsync_file(plain / str(shard))
        (plain / "tokens").write_bytes(tokens)
        fsync_file(plain / "tokens")

    def one_file() -> None:
        with open(plain / "all", "wb") as file:
            for shard in range(plan.n_shards):
                file.write(files[content_of(shard)])
            file.write(tokens)
        fsync_file(plain / "all")

    first = "sequential write, one fsync"
    times = in_turns(
        {
            first: one_file,
            "sequential write, a file and an fsync a shard": file_each,
            "committed shards, raw": commit,
        },
        rounds,
        before=before,
    )
    print("| writing | MB/s | of one sequential write |\n|---|---|---|")
    for name in times:
        rate = (len(files[0]) * plan.n_shards + len(tokens)) / times.seconds(name) / 1e6
        print(f"| {name} | {rate:.0f} | {times.ratio(name, first):.2f} |")
    print()
    before()
    commit()
    out.rename(root / "written")
    for folder in root.glob("trial*"):
        shutil.rmtree(folder)


def spans_table(root: Path, plan: Plan, rounds: int) -> None:
    """Every sequence once, in random order, copied: ours, numpy.memmap of the same bytes, Zarr's
    row lists, and other ways to keep the same rows. Warm, the bytes are in the page cache and the
    files mapped; cold, neither.
    """
    layer = plan.layers[0]
    store = ActivationStore(root)
    array = open_arrays(root, plan.layers)[layer_array(layer)]
    flat = root.parent / "flat.npy"
    np.save(flat, array[:])
    chosen = random.Random(0).sample(list(plan.index.values()), len(plan.index))
    size = sum(s.n_tokens for s in chosen) * plan.d_model * array.dtype.itemsize
    few = chosen[: max(1, len(chosen) // 100)]
    share = sum(s.n_tokens for s in few) / sum(s.n_tokens for s in chosen)
    mapped: list[np.ndarray] = []

    def ours() -> None:
        for s in chosen:
            values = store.bits(s.example_id, layer)
            if values.base is not None:  # a view of the file; what crosses chunks is a copy already
                values.copy()

    def memmap() -> None:
        if not mapped:
            mapped.append(np.load(flat, mmap_mode="r"))
        for s in chosen:
            np.array(mapped[0][s.row_start : s.row_start + s.n_tokens])

    def naive() -> None:
        for s in few:
            array.oindex[list(range(s.row_start, s.row_start + s.n_tokens))]

    def forgotten() -> None:
        mapped.clear()
        store.close()
        uncached([flat, *files])

    start = time.perf_counter()
    ours()
    once = time.perf_counter() - start
    memmap()
    files = [root / array_file(layer_array(layer), i) for i in range(plan.n_shards)]
    first, own, lists = "numpy.memmap", "this store", "zarr, lists of rows"
    warm = in_turns({first: memmap, own: ours}, 4 * rounds)
    cold = in_turns({first: memmap, own: ours}, rounds, before=forgotten)
    listed = in_turns({lists: naive}, 3).seconds(lists) / share

    def line(name: str, *columns: tuple[float, float]) -> None:
        """MB/s and how many times as fast as memmap, warm and cold."""
        found = "".join(f" {rate:.0f} | {ratio:.3g} |" for rate, ratio in columns)
        print(f"| {name} |{found}{' | |' if len(columns) == 1 else ''}")

    def rate(seconds: float, of: Times) -> tuple[float, float]:
        return size / seconds / 1e6, of.seconds(first) / seconds

    print("| random sequences, each copied | warm MB/s | of memmap | cold MB/s | of memmap |")
    print("|---|---|---|---|---|")
    for name in (first, own):
        columns = [(size / t.seconds(name) / 1e6, t.ratio(name, first)) for t in (warm, cold)]
        line(name, *columns)
    line(lists, rate(listed, warm))
    for name, (hot, off_disk) in rivals(store, layer, chosen, root.parent, 3).items():
        line(name, rate(hot, warm), rate(off_disk, cold))
    print(f"\nThe first pass over the store, which checks each shard once: {once:.2f} s.")


def _empty_files(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        os.truncate(path, 0)


def _padded(batch: list[np.ndarray], net: nn.Module) -> torch.Tensor:
    out = np.zeros((len(batch), max(map(len, batch))), np.int64)
    for row, ids in zip(out, batch, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(out).to(next(net.parameters()).device)


if __name__ == "__main__":
    main()
