"""The activation store against the least that its work could cost, and against what others do.

Capture against bare forward passes over the same batches; raw writing against a sequential write
with fsync of the same bytes; random spans against numpy.memmap and Zarr's row lists; and the same
rows as one safetensors file a sample and as SAELens caches them. Medians of several rounds, taken
in turns in one run; prints Markdown tables.

    python benchmarks/store.py --model embedded --tokens 30000
    python benchmarks/store.py --random 4x64 --tokens 200000       # a tiny model, made here
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from store_bench import Rows, captured, emptied, measured, planned, sequences, target
from store_rivals import rivals
from torch import nn

from activation_store.capture import Capture
from activation_store.commits import commit_all
from activation_store.layout import PHYSICAL, layer_array, open_arrays, shard_file
from activation_store.plan import Plan, write_plan
from activation_store.reader import ActivationStore
from activation_store.target import blocks
from generators.files import fsync_file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--random", help="BLOCKSxD_MODEL: a random model in place of --model")
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=2_000)
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
        writing_table(root, plan, words.rounds)
        spans_table(root / "store", plan, words.spans, words.rounds)


def capture_table(root: Path, plan: Plan, rows: Rows, net: nn.Module, rounds: int) -> None:
    """Tokens per second of capture (written and committed) and of bare forward passes."""
    batches = [
        [rows[s.example_id].ids for s in batch]
        for shard in range(plan.n_shards)
        for batch in plan.batches(shard)
    ]
    padded = [_padded(batch, net) for batch in batches]
    capture = Capture(net, plan.layers)

    def bare() -> None:
        with torch.inference_mode():
            for ids in padded:
                net(ids, use_cache=False)

    def truncated() -> None:
        decoder = net.get_decoder()  # type: ignore[operator]
        whole, norm = decoder.layers, decoder.norm
        decoder.layers, decoder.norm = whole[: max(plan.layers) + 1], nn.Identity()
        try:
            with torch.inference_mode():
                for ids in padded:
                    decoder(ids, use_cache=False)
        finally:
            decoder.layers, decoder.norm = whole, norm

    depth = f"{max(plan.layers) + 1} of {len(blocks(net))} blocks"
    seconds = measured(
        {
            f"bare forward, {depth}": truncated,
            "bare forward, whole": bare,
            f"capture, {depth}, not kept": lambda: [capture(batch) for batch in batches] and None,
            f"capture, {depth}, into a committed store": lambda: captured(root, plan, rows, net),
        },
        rounds,
    )
    part, whole, *_ = seconds.values()
    print("| what | tokens/s | of bare truncated | of bare whole |\n|---|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {plan.tokens / value:.0f} | {part / value:.2f} | {whole / value:.2f} |")
    print()


def writing_table(root: Path, plan: Plan, rounds: int) -> None:
    """Committing filled shards, and writing the same bytes with fsync."""
    draw = np.random.default_rng(0)
    wide = (plan.shard_rows, plan.d_model)
    content = {
        layer_array(plan.layers[0]): draw.integers(0, 0x7F00, wide).astype(PHYSICAL[plan.dtype]),
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }
    data = b"".join(values.tobytes() for values in content.values())

    out = emptied(root / "written")
    write_plan(out, plan)

    def commit() -> None:
        for name in ("acts/L*/c", "tokens/c", "segments/c", "commits"):
            for folder in out.glob(name):
                shutil.rmtree(folder)
        commit_all(out, plan, ((shard, content) for shard in range(plan.n_shards)))

    def files() -> None:
        plain = emptied(root / "plain")
        for shard in range(plan.n_shards):
            (plain / str(shard)).write_bytes(data)
            fsync_file(plain / str(shard))

    def one_file() -> None:
        plain = emptied(root / "plain") / "all"
        with open(plain, "wb") as file:
            for _ in range(plan.n_shards):
                file.write(data)
        fsync_file(plain)

    seconds = measured(
        {
            "sequential write, one fsync": one_file,
            "sequential write, a file and an fsync a shard": files,
            "committed shards, raw": commit,
        },
        rounds,
    )
    first = next(iter(seconds.values()))
    print("| writing | MB/s | of one sequential write |\n|---|---|---|")
    for what, value in seconds.items():
        rate = len(data) * plan.n_shards / value / 1e6
        print(f"| {what} | {rate:.0f} | {first / value:.2f} |")
    print()


def spans_table(root: Path, plan: Plan, spans: int, rounds: int) -> None:
    """Whole sequences in random order: ours, numpy.memmap of the same bytes, Zarr's row lists,
    and other ways to keep the same rows."""
    layer = plan.layers[0]
    store = ActivationStore(root)
    array = open_arrays(root, plan.layers)[layer_array(layer)]
    flat = root.parent / "flat.npy"
    np.save(flat, array[:])
    draw = random.Random(0)
    chosen = [draw.choice(plan.sequences) for _ in range(spans)]
    size = sum(s.n_tokens for s in chosen) * plan.d_model * array.dtype.itemsize
    few = chosen[: max(1, spans // 100)]
    share = sum(s.n_tokens for s in few) / sum(s.n_tokens for s in chosen)
    mapped = np.load(flat, mmap_mode="r")

    def ours() -> None:
        for s in chosen:
            np.require(store.bits(s.example_id, layer), requirements="O")  # a view is copied

    def memmap() -> None:
        for s in chosen:
            np.array(mapped[s.row_start : s.row_start + s.n_tokens])

    def naive() -> None:
        for s in few:
            array.oindex[list(range(s.row_start, s.row_start + s.n_tokens))]

    ours()  # the one check of each shard
    files = [root / shard_file(layer_array(layer), i) for i in range(plan.n_shards)]
    ways = {"numpy.memmap": memmap, "this store": ours}
    warm = measured(ways, rounds)
    cold = measured(ways, rounds, cold=[flat, *files])
    lists = measured({"zarr, lists of rows": naive}, rounds)
    warm |= {name: value / share for name, value in lists.items()}
    other = rivals(store, layer, chosen, root.parent, rounds)
    print("| random sequences, each copied | warm MB/s | of memmap | cold MB/s | of memmap |")
    print("|---|---|---|---|---|")
    for what, (hot, first) in {
        **{name: (value, cold.get(name)) for name, value in warm.items()},
        **other,
    }.items():
        line = f"| {what} | {size / hot / 1e6:.0f} | {warm['numpy.memmap'] / hot:.2f} |"
        if first is None:
            print(f"{line} | |")
        else:
            print(f"{line} {size / first / 1e6:.0f} | {cold['numpy.memmap'] / first:.2f} |")
    print()


def _padded(batch: list[np.ndarray], net: nn.Module) -> torch.Tensor:
    out = np.zeros((len(batch), max(map(len, batch))), np.int64)
    for row, ids in zip(out, batch, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(out).to(next(net.parameters()).device)


if __name__ == "__main__":
    main()
