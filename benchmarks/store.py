"""The activation store against the least that its work could cost.

Capture against bare forward passes over the same batches, raw writing against a sequential write
with fsync of the same bytes, random spans against numpy.memmap and Zarr's row lists, and what the
lossless codec saves. Medians of several rounds in one run; prints Markdown tables.

    python benchmarks/store.py --model embedded --tokens 30000
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.capture import Capture
from activation_store.commits import commit_shard
from activation_store.config import CaptureConfig
from activation_store.layout import PHYSICAL, layer_array, open_arrays, shard_file
from activation_store.model_files import resolve_model
from activation_store.plan import Plan, make_plan, write_plan
from activation_store.reader import ActivationStore
from activation_store.root_record import write_root
from activation_store.runtime import Runtime
from activation_store.spans import Tokens
from activation_store.target import blocks, load_model, load_tokenizer, model_shape, pick_device
from activation_store.writer import fill
from generators.files import fsync_file

Rows = dict[str, Tokens]
PROJECT = Path(__file__).parents[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, help="where to write; a folder on the disk in mind")
    words = parser.parse_args()
    model = resolve_model(words.model)
    shape = model_shape(model)
    net = load_model(model, dtype="float32", device=pick_device(Runtime()))
    rows = sequences(load_tokenizer(model), words.tokens, shape.max_positions)
    half = shape.n_blocks // 2 - 1
    print(f"{words.model}, {words.tokens} tokens, {os.cpu_count()} cores, {words.rounds} rounds\n")
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        root = Path(folder)
        plan = planned(rows, (half,), shape.d_model)
        capture_table(root, plan, rows, net, words.rounds)
        writing_table(root, plan, words.rounds)
        spans_table(root / "capture", plan, words.spans, words.rounds)
        last = shape.n_blocks - 1
        layers = tuple(sorted({0, half // 2, half, (half + last) // 2, last}))
        codec_table(root, rows, layers, shape.d_model, net)


def sequences(tokenizer: Any, tokens: int, longest: int) -> Rows:
    """This project's own documentation and source, cut to 32 to 512 tokens, `tokens` in all."""
    pages = [*sorted(PROJECT.glob("docs/*.md")), *sorted(PROJECT.glob("activation_store/*.py"))]
    text = "\n".join(page.read_text() for page in pages)
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int32)
    draw = np.random.default_rng(0)
    out: Rows = {}
    while tokens > 0:
        n = int(min(tokens, longest, draw.integers(32, 513)))
        start = int(draw.integers(0, len(ids) - n))
        out[f"{len(out):06d}"] = Tokens(ids[start : start + n], np.zeros(n, np.uint8), 0)
        tokens -= n
    return out


def planned(rows: Rows, layers: tuple[int, ...], d_model: int, **changes: str) -> Plan:
    """A plan for these rows, bound to no model."""
    config = CaptureConfig(layers=layers, **changes)
    return make_plan(rows, config=config, layers=layers, d_model=d_model, target={})


def capture_table(root: Path, plan: Plan, rows: Rows, net: nn.Module, rounds: int) -> None:
    """Tokens per second of capture (written and committed) and of bare forward passes."""
    batches = [
        [rows[s.example_id].ids for s in batch]
        for shard in range(plan.n_shards)
        for batch in plan.batches(shard)
    ]
    padded = [_padded(batch, net) for batch in batches]
    captured = Capture(net, plan.layers)

    def store() -> None:
        _empty(root / "capture")
        write_plan(root / "capture", plan)
        fill(root / "capture", plan, rows, net, range(plan.n_shards))

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
            f"capture in memory, {depth}": lambda: [captured(batch) for batch in batches] and None,
            f"capture into a store, {depth}": store,
            "bare forward, whole": bare,
        },
        rounds,
    )
    first = next(iter(seconds.values()))
    print("| what | tokens/s | against the bare truncated forward |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {plan.tokens / value:.0f} | {first / value:.2f} |")
    print()
    write_root(root / "capture")


def writing_table(root: Path, plan: Plan, rounds: int) -> None:
    """Committing filled shards, and writing the same bytes once with fsync."""
    draw = np.random.default_rng(0)
    name = layer_array(plan.layers[0])
    wide = (plan.shard_rows, plan.d_model)
    content = {
        name: draw.integers(0, 0x7F00, wide).astype(PHYSICAL[plan.dtype]),
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }
    size = sum(values.nbytes for values in content.values()) * plan.n_shards

    def commit() -> None:
        _empty(root / "written")
        write_plan(root / "written", plan)
        arrays = open_arrays(root / "written", plan.layers, write=True)
        for shard in range(plan.n_shards):
            commit_shard(root / "written", plan, arrays, shard, content)

    def plain() -> None:
        for shard in range(plan.n_shards):
            path = root / f"plain-{shard}"
            path.write_bytes(b"".join(values.tobytes() for values in content.values()))
            fsync_file(path)

    seconds = measured({"sequential write + fsync": plain, "committed shards": commit}, rounds)
    first = seconds["sequential write + fsync"]
    print("| writing, raw | MB/s | ratio |\n|---|---|---|")
    for what, value in seconds.items():
        print(f"| {what} | {size / value / 1e6:.0f} | {first / value:.2f} |")
    print()


def spans_table(root: Path, plan: Plan, spans: int, rounds: int) -> None:
    """Whole sequences in random order: ours, numpy.memmap of the same bytes, Zarr's row lists."""
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
            np.array(store.bits(s.example_id, layer))

    def memmap() -> None:
        for s in chosen:
            np.array(mapped[s.row_start : s.row_start + s.n_tokens])

    def naive() -> None:
        for s in few:
            array.oindex[list(range(s.row_start, s.row_start + s.n_tokens))]

    ours()  # the one check of each shard
    files = [flat, *(root / shard_file(layer_array(layer), i) for i in range(plan.n_shards))]
    print("| random spans of 32 to 512 tokens | MB/s | against numpy.memmap |\n|---|---|---|")
    for name, before in (("warm", None), ("cold", files)):
        seconds = measured({"numpy.memmap": memmap, "this store": ours}, rounds, drop=before)
        for what, value in seconds.items():
            rate = size / value / 1e6
            print(f"| {what}, {name} | {rate:.0f} | {seconds['numpy.memmap'] / value:.2f} |")
    value = measured({"naive": naive}, rounds)["naive"] / share
    print(f"| zarr, lists of rows, warm | {size / value / 1e6:.0f} | |\n")


def codec_table(
    root: Path, rows: Rows, layers: tuple[int, ...], d_model: int, net: nn.Module
) -> None:
    """Bytes of each layer under both codecs, and the speed at which a shard comes back."""
    plans: dict[str, Plan] = {}
    for codec in ("raw", "lossless"):
        plans[codec] = planned(rows, layers, d_model, codec=codec)
        write_plan(root / codec, plans[codec])
        fill(root / codec, plans[codec], rows, net, range(plans[codec].n_shards))
    print("| layer | raw MB | lossless MB | ratio | lossless read MB/s |\n|---|---|---|---|---|")
    for layer in layers:
        size = {
            codec: sum(
                (root / codec / shard_file(layer_array(layer), i)).stat().st_size
                for i in range(plan.n_shards)
            )
            for codec, plan in plans.items()
        }
        array = open_arrays(root / "lossless", layers)[layer_array(layer)]
        start = time.perf_counter()
        read = array[:].nbytes
        rate = read / (time.perf_counter() - start)
        print(
            f"| {layer} | {size['raw'] / 1e6:.2f} | {size['lossless'] / 1e6:.2f} "
            f"| {size['lossless'] / size['raw']:.3f} | {rate / 1e6:.0f} |"
        )


def measured(
    ways: dict[str, Callable[[], None]], rounds: int, *, drop: list[Path] | None = None
) -> dict[str, float]:
    """Median seconds of each way, taken in turns; with `drop`, these files leave the page cache
    before each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            for path in drop or []:
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def _padded(batch: list[np.ndarray], net: nn.Module) -> torch.Tensor:
    out = np.zeros((len(batch), max(map(len, batch))), np.int64)
    for row, ids in zip(out, batch, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(out).to(next(net.parameters()).device)


def _empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
