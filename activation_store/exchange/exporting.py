"""A layer of a store as files that other programs read.

```
layer.json              what they are: layer, d_model, dtype, target, the store's plan
examples.parquet        example_id, n_tokens, file, tokens, segments, withheld
vectors-000000.safetensors   one tensor [T, d_model] an example, under its id
```

or, as `datasets`, a folder for `datasets.load_from_disk`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.read.reader import ActivationStore
from activation_store.read.views import features, records
from core.canonical import digest
from core.files import new_folder, write_json

FORMATS = ("safetensors", "datasets")
LAYER_FILE = "layer.json"
EXAMPLES_FILE = "examples.parquet"


def export_layer(store: ActivationStore, layer: int, out: Path, *, format: str) -> dict[str, Any]:
    """Write every example's vectors at the output of block `layer` to the new folder `out`.

    Args:
        format: `safetensors` (in the store's own number format) or `datasets` (float32).

    Returns:
        {"examples", "tokens", "layer", "d_model", "dtype"}.

    Raises:
        StoreError: a shard is not committed, or the store has not the layer.
        DamagedError: bytes are not those committed.
        StorageError: the disk is full, or something stands at `out`.
    """
    layer = store.only_layer(layer)
    counts = {
        "examples": len(store.index),
        "tokens": int(store.index.n_tokens.sum()),
        "layer": layer,
        "d_model": store.d_model,
        "dtype": store.plan["dtype"] if format == "safetensors" else "float32",
    }
    with new_folder(out) as aside:
        if format == "safetensors":
            _safetensors(store, layer, aside)
        else:
            _datasets(store, layer, aside)
        about = {**counts, "target": store.plan["target"], "plan": store.plan["digest"]}
        write_json(aside / LAYER_FILE, about)
    return counts


def _safetensors(store: ActivationStore, layer: int, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, store.plan["dtype"])
    by_shard: dict[int, list[str]] = {}
    for example, placed in store.index.items():
        by_shard.setdefault(placed.shard, []).append(example)
    rows = []
    for shard, examples in by_shard.items():
        name = f"vectors-{shard:06d}.safetensors"
        # copies: rows of a mapped file are read-only, which torch does not know
        bits = {e: torch.from_numpy(np.array(store.bits(e, layer))) for e in examples}
        save_file({e: values.view(dtype) for e, values in bits.items()}, out / name)
        for example in examples:
            placed = store.index[example]
            rows.append(
                {
                    "example_id": example,
                    "n_tokens": placed.n_tokens,
                    "file": name,
                    "tokens": store.tokens(example).tolist(),
                    "segments": store.segments(example).tolist(),
                    "withheld": placed.withheld,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), out / EXAMPLES_FILE, compression="zstd")


@contextlib.contextmanager
def _bars_on_a_terminal_alone() -> Iterator[None]:
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _datasets(store: ActivationStore, layer: int, out: Path) -> None:
    from datasets import Dataset

    # the library's cache is keyed by arguments and knows no digests: a folder of our own, removed
    with tempfile.TemporaryDirectory(dir=out.parent) as cache, _bars_on_a_terminal_alone():
        Dataset.from_generator(
            records,
            features=features(store.d_model),
            gen_kwargs={"store": store, "layer": layer},
            cache_dir=cache,
            fingerprint=digest([store.plan["digest"], layer])[:16],
        ).save_to_disk(str(out))
