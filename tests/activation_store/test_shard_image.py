"""Shard files as Zarr itself would have written them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from activation_store.config import Codec
from activation_store.layout import PHYSICAL, array_metadata, open_arrays, shard_file
from activation_store.shard_image import packer, shard_image

ROWS, CHUNK, WIDTH, SHARDS = 96, 16, 8, 3


def values_of(dtype: str) -> np.ndarray:
    """A shard with all bits in use, and a chunk of zeros, which Zarr likes to leave out."""
    bits = np.random.default_rng(0).bytes(ROWS * WIDTH * np.dtype(PHYSICAL[dtype]).itemsize)
    values = np.frombuffer(bits, PHYSICAL[dtype]).reshape(ROWS, WIDTH).copy()
    values[CHUNK : 2 * CHUNK] = 0
    return values


@pytest.mark.parametrize("codec", ["raw", "lossless"])
@pytest.mark.parametrize("dtype", PHYSICAL)
def test_the_bytes_are_those_that_zarr_writes(dtype: str, codec: Codec, tmp_path: Path) -> None:
    metadata = array_metadata(
        rows=ROWS * SHARDS,
        d_model=WIDTH,
        layers=(5,),
        dtype=dtype,
        shard_rows=ROWS,
        chunk_rows=CHUNK,
        codec=codec,
    )
    for name, content in metadata.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    values = values_of(dtype)
    tokens = np.arange(ROWS, dtype=np.int32)
    group = zarr.open_group(tmp_path, mode="r+")
    for name, written in (("acts/L5", values), ("tokens", tokens)):
        group[name].with_config({"write_empty_chunks": True})[ROWS : 2 * ROWS] = written
        pack = packer(dtype, codec) if name == "acts/L5" else None
        image = b"".join(shard_image(written, CHUNK, pack))
        assert image == (tmp_path / shard_file(name, 1)).read_bytes()
        (tmp_path / shard_file(name, 0)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / shard_file(name, 0)).write_bytes(image)
    arrays = open_arrays(tmp_path, (5,))
    assert arrays["acts/L5"][:ROWS].tobytes() == values.tobytes()
    assert arrays["tokens"][:ROWS].tolist() == tokens.tolist()
