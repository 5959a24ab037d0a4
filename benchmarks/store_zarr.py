"""The same rows through zarr in contiguous slices, written and read, by zarr-python and by zarrs.

zarrs is no part of this project: where `pip install zarrs` has been run, its pipeline is measured.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from store_bench import emptied, in_turns, made_content
from zarr.codecs import Crc32cCodec

from activation_store.layout.arrays import layer_array
from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan
from activation_store.layout.plan_files import write_plan
from activation_store.read.reader import ActivationStore
from activation_store.tokens.token_table import TokenTable
from activation_store.write.shard_writer import ShardWriter
from core.files import fsync_file

PIPELINES = {
    "zarr-python": ("zarr", "zarr.core.codec_pipeline.BatchedCodecPipeline"),
    "zarrs": ("zarrs", "zarrs.ZarrsCodecPipeline"),
}
"""Package and codec pipeline by name."""


def zarr_table(root: Path, plan: Plan, rows: TokenTable, rounds: int) -> None:
    """Print MB/s of writing whole shards and of reading sequences, relative to this store.

    All have a checksum on every chunk, and fsync what they write.
    """
    content = made_content(plan, 0)
    values = content[layer_array(plan.layers[0])]
    _, chunk_rows = CaptureConfig().shard_and_chunk_rows(plan.d_model)
    spans = list(plan.index.values())
    chosen = random.Random(0).sample(spans, max(1, len(spans) // 10))
    written = values.nbytes * plan.n_shards / 1e6
    read = sum(s.n_tokens for s in chosen) * plan.d_model * values.itemsize / 1e6

    def using(name: str) -> AbstractContextManager[Any]:
        return zarr.config.set({"codec_pipeline.path": PIPELINES[name][1]})

    def ours() -> None:
        folder = emptied(root / "this store")
        write_plan(folder, plan, rows)
        with ShardWriter(folder, plan) as writer:
            for shard in range(plan.n_shards):
                writer.submit(shard, content)

    def by_zarr(name: str) -> None:
        with using(name):
            array = zarr.create_array(
                emptied(root / name),
                shape=(plan.n_shards * plan.shard_rows, plan.d_model),
                dtype=values.dtype,
                chunks=(chunk_rows, plan.d_model),
                shards=(plan.shard_rows, plan.d_model),
                compressors=[Crc32cCodec()],
                overwrite=True,
            )
            for shard in range(plan.n_shards):
                array[shard * plan.shard_rows : (shard + 1) * plan.shard_rows] = values
        for path in (root / name).rglob("c/*/*"):
            fsync_file(path)

    names = [name for name, (package, _) in PIPELINES.items() if importlib.util.find_spec(package)]
    writing = in_turns(
        {"this store": ours, **{name: partial(by_zarr, name) for name in names}}, rounds
    )
    store = ActivationStore(root / "this store")

    def slices(name: str) -> None:
        with using(name):
            array: Any = zarr.open_array(root / name, mode="r")
            for s in chosen:
                np.asarray(array[s.row_start : s.row_start + s.n_tokens])

    def spans_of_ours() -> None:
        for s in chosen:
            store.bits(s.example_id, plan.layers[0]).copy()

    ways: dict[str, Callable[[], object]] = {"this store": spans_of_ours}
    reading = in_turns(ways | {name: partial(slices, name) for name in names}, rounds)
    print("\n| contiguous slices | write MB/s | of this store | read MB/s | of this store |")
    print("|---|---|---|---|---|")
    for name in writing:
        print(
            f"| {name} | {written / writing.seconds(name):.0f} "
            f"| {writing.ratio(name, 'this store'):.3g} "
            f"| {read / reading.seconds(name):.0f} | {reading.ratio(name, 'this store'):.3g} |"
        )
    if "zarrs" not in names:
        print("\nzarrs is not installed here (pip install zarrs); it is left out.")
