"""The arrays of a store on disk: Zarr v3, ragged and flat.

```
zarr.json  acts/L{k} [rows, d_model]  tokens [rows] int32  segments [rows] uint8
plan.json  index.parquet  dropped.parquet  commits/{shard}.json  root.json  canary.json
```

A shard is `shard_rows` consecutive rows; a sequence lies in one shard. Unused rows at the end of a
shard are zeros. Activations are a file per shard; token ids and segments, which are known before
the target runs, are one file for many shards (activation_store/layout/plan_files.py). bfloat16, for
which zarr has no type on Python 3.11, is kept as its 16 bits in uint16, with the logical type in
the attributes.

The codec `raw` leaves activations as they are; `lossless` puts the high bytes of a chunk's numbers
before their low ones (in bfloat16 that parts most of the exponents, which repeat, from the
mantissas, which do not) and packs them with Zstandard. Any Zarr reader undoes both.
"""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core import sync

from activation_store.layout.config import Codec
from core.errors import StoreError

STORE_SCHEMA = 4
"""Version of the layout. Stores of versions 1 to 3 were never released, and are not read."""
PLAN_FILE = "plan.json"
INDEX_FILE = "index.parquet"
ROOT_FILE = "root.json"
CANARY_FILE = "canary.json"
COMMITS = "commits"
TOKEN_ARRAYS: dict[str, type[np.generic]] = {"tokens": np.int32, "segments": np.uint8}
"""Arrays beside the activations, and their types."""
PHYSICAL = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
PACKING: dict[str, Any] = {"cname": "zstd", "clevel": 5}
"""Blosc's settings under the codec `lossless`, beside the shuffling of bytes."""
_LONGEST_WAIT_S = 60.0


@atexit.register
def stop_zarr() -> None:
    """End zarr's event loop at the end of the process, before zarr does.

    zarr gives its thread 0.2 s, and then closes the loop even while it runs, which is an error: on
    a busy machine the thread needs longer.
    """
    loop, thread = sync.loop[0], sync.iothread[0]
    if loop is not None and thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_LONGEST_WAIT_S)


def layer_array(layer: int) -> str:
    """Return the name of the array that holds the output of block `layer`."""
    return f"acts/L{layer}"


def array_names(layers: tuple[int, ...]) -> list[str]:
    """Return the names of all arrays of a store."""
    return [*(layer_array(k) for k in layers), *TOKEN_ARRAYS]


def array_metadata(
    *,
    rows: int,
    d_model: int,
    layers: tuple[int, ...],
    dtype: str,
    shard_rows: int,
    chunk_rows: int,
    token_rows: int,
    codec: Codec = "raw",
) -> dict[str, bytes]:
    """Return Zarr's metadata files of a store, by path below it.

    Args:
        rows: of all shards.
        d_model: width of an activation.
        layers: read layers.
        dtype: number format of activations.
        shard_rows, chunk_rows: rows of a file of activations, and of a checksum in it.
        token_rows: rows of a file of token ids or segments.
        codec: how activations are packed.
    """
    checked = [Crc32cCodec()]  # a flipped byte raises; the default codecs would read it
    # a folder for each shard would be one more to make and to sync
    flat: Any = {"name": "default", "separator": "."}
    with tempfile.TemporaryDirectory() as aside:
        root = Path(aside)
        attributes: dict[str, Any] = {"format": "latentqa", "schema": STORE_SCHEMA}
        group = zarr.open_group(root, mode="w", attributes=attributes)
        for layer in layers:
            group.create_array(
                layer_array(layer),
                shape=(rows, d_model),
                shards=(shard_rows, d_model),
                chunks=(chunk_rows, d_model),
                dtype=PHYSICAL[dtype],
                attributes={"dtype": dtype, "layer": layer, "what": f"output of block {layer}"},
                compressors=[*_packing(dtype, codec), *checked],
                fill_value=0,
                chunk_key_encoding=flat,
            )
        for name, kind in TOKEN_ARRAYS.items():
            group.create_array(
                name,
                shape=(rows,),
                chunks=(token_rows,),
                dtype=kind,
                compressors=checked,
                fill_value=0,
                chunk_key_encoding=flat,
            )
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("zarr.json"))
        }


def _packing(dtype: str, codec: Codec) -> list[BloscCodec]:
    if codec == "raw":
        return []
    width = np.dtype(PHYSICAL[dtype]).itemsize
    return [BloscCodec(typesize=width, shuffle="shuffle", **PACKING)]


def open_arrays(root: Path, layers: tuple[int, ...]) -> dict[str, zarr.Array[Any]]:
    """Open the arrays of a store for reading, by name.

    Raises:
        StoreError: `root` holds no such store.
    """
    try:
        group = zarr.open_group(root, mode="r")
        arrays = {name: group[name] for name in array_names(layers)}
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StoreError(f"store {root}: no activation store is here ({error}).") from error
    return {name: array for name, array in arrays.items() if isinstance(array, zarr.Array)}


def array_file(name: str, number: int) -> str:
    """Return the path, below the store, of an array's file: of activations, that of a shard."""
    return f"{name}/c.{number}" if name in TOKEN_ARRAYS else f"{name}/c.{number}.0"


def array_of(file: str) -> str | None:
    """Return the array whose values a file holds, by its path below the store; None for others."""
    array, mark, _ = file.partition("/c.")
    return array if mark else None


def to_float32(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Convert stored values of any shape to float32, exactly."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
