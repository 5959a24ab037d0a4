"""Shard files as Zarr itself would have written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from activation_store.layout.arrays import PHYSICAL, array_file, array_metadata, open_arrays
from activation_store.layout.config import Codec
from activation_store.layout.file_digests import digest_file
from activation_store.layout.shard_image import chunk_packer, make_shard_image

ROWS, CHUNK, WIDTH, SHARDS = 96, 16, 8, 3


def values_of(dtype: str) -> np.ndarray:
    """Return a shard with all bits in use, and a chunk of zeros, which Zarr likes to leave out."""
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
        token_rows=ROWS,
        codec=codec,
    )
    for name, content in metadata.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    values = values_of(dtype)
    group: Any = zarr.open_group(tmp_path, mode="r+")
    group["acts/L5"].with_config({"write_empty_chunks": True})[ROWS : 2 * ROWS] = values
    image = make_shard_image(values, CHUNK, chunk_packer(dtype, codec))
    file = b"".join(image.pieces())
    there, here = (tmp_path / array_file("acts/L5", number) for number in (1, 0))
    assert file == there.read_bytes()
    assert image.digest == digest_file(there)
    here.parent.mkdir(parents=True, exist_ok=True)
    here.write_bytes(file)
    arrays: dict[str, Any] = dict(open_arrays(tmp_path, (5,)))
    assert arrays["acts/L5"][:ROWS].tobytes() == values.tobytes()


def test_what_is_read_back_is_known_by_its_checksums() -> None:
    values = np.arange(4 * CHUNK, dtype=np.int32)
    image = make_shard_image(values, CHUNK)
    file = np.frombuffer(b"".join(image.pieces()), np.uint8)
    assert image.matches(file)
    for at in range(len(file)):
        spoilt = file.copy()
        spoilt[at] ^= 1
        assert not image.matches(spoilt), at
    assert not image.matches(file[:-1])
    assert not image.matches(np.append(file, np.uint8(0)))


def test_another_whole_shard_is_not_taken_for_this_one() -> None:
    image, other = (
        make_shard_image(np.arange(n, n + 4 * CHUNK, dtype=np.int32), CHUNK) for n in (0, 1)
    )
    assert not image.matches(np.frombuffer(b"".join(other.pieces()), np.uint8))


def test_each_chunk_is_checked_before_it_is_taken() -> None:
    seen: list[np.ndarray] = []
    make_shard_image(np.arange(4 * CHUNK, dtype=np.int32), CHUNK, check=seen.append)
    assert [len(rows) for rows in seen] == [CHUNK] * 4
    assert np.concatenate(seen).tolist() == list(range(4 * CHUNK))
