"""Export of a layer of a store to files that other programs read.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.read.reader import ActivationStore
from core.documents.canonical import digest
from core.files import new_folder, write_json

FORMATS = ("safetensors", "datasets")
LAYER_FILE = "layer.json"
EXAMPLES_FILE = "examples.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """Counts and layout of the vectors that an export wrote."""

    examples: int
    tokens: int
    layer: int
    d_model: int
    dtype: str


def export_layer(store: ActivationStore, layer: int, out: Path, *, format: str) -> ExportResult:
    """Write every example's vectors at the output of block `layer` to the new folder `out`.

    Args:
        store: the store, complete.
        layer: block, counted from 0.
        out: new folder.
        format: `safetensors` (in the store's own number format) or `datasets` (float32).

    Raises:
        StoreError: a shard is not committed, or the store has not the layer.
        DamagedError: bytes are not those committed.
        StorageError: the disk is full, or something stands at `out`.
    """
    layer = store.only_layer(layer)
    result = ExportResult(
        examples=len(store.index),
        tokens=store.index.tokens,
        layer=layer,
        d_model=store.d_model,
        dtype=store.plan["dtype"] if format == "safetensors" else "float32",
    )
    with new_folder(out) as aside:
        if format == "safetensors":
            _write_safetensors(store, layer, aside)
        else:
            _write_dataset(store, layer, aside)
        about = {**asdict(result), "target": store.plan["target"], "plan": store.plan["digest"]}
        write_json(aside / LAYER_FILE, about)
    return result


def _write_safetensors(store: ActivationStore, layer: int, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, store.plan["dtype"])
    rows = []
    for shard in range(store.plan["n_shards"]):
        name = f"vectors-{shard:06d}.safetensors"
        own = store.index.spans_in(shard)
        # copies: rows of a mapped file are read-only, which torch does not know
        bits = {
            s.example_id: torch.from_numpy(np.array(store.bits(s.example_id, layer))) for s in own
        }
        save_file({e: values.view(dtype) for e, values in bits.items()}, out / name)
        for s in own:
            rows.append(
                {
                    "example_id": s.example_id,
                    "n_tokens": s.n_tokens,
                    "file": name,
                    "tokens": store.tokens(s.example_id).tolist(),
                    "segments": store.segments(s.example_id).tolist(),
                    "withheld": s.withheld,
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


def _write_dataset(store: ActivationStore, layer: int, out: Path) -> None:
    from datasets import Array2D, Dataset, Features, List, Value

    columns = Features(
        {
            "example_id": Value("string"),
            "tokens": List(Value("int32")),
            "segments": List(Value("uint8")),
            "withheld": Value("int32"),
            "activations": Array2D(shape=(None, store.d_model), dtype="float32"),
        }
    )
    # the library's cache is keyed by arguments and knows no digests: a folder of our own, removed
    with tempfile.TemporaryDirectory(dir=out) as cache, _bars_on_a_terminal_alone():
        Dataset.from_generator(
            _records,
            features=columns,
            gen_kwargs={"store": store, "layer": layer},
            cache_dir=cache,
            fingerprint=digest([store.plan["digest"], layer])[:16],
        ).save_to_disk(str(out))


def _records(store: ActivationStore, layer: int) -> Iterator[dict[str, Any]]:
    """Yield a record an example: tokens [T], segments [T], withheld, activations [T, D] float32."""
    for example, span in store.index.items():
        yield {
            "example_id": example,
            "tokens": store.tokens(example),
            "segments": store.segments(example),
            "withheld": span.withheld,
            "activations": store.read(example, layer),
        }
