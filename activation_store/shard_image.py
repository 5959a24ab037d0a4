"""One shard of one array as the bytes of its file: Zarr v3's sharded form, made in one go.

Inner chunks in row order, each packed and followed by its crc32c, then the index: offset and size
of each as two little-endian uint64, and the index's own crc32c. Zarr itself writes the same bytes
(a test compares them), but chunk by chunk through its pipeline, at a fraction of the disk's speed.
"""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc

from activation_store.config import Codec
from activation_store.layout import PACKING, PHYSICAL

CHECKSUM = 4
"""Bytes of a crc32c."""
ENTRY = 16
"""Bytes of a chunk in the index."""
SMALL = 1 << 20
"""Bytes of values below which one piece costs less than several."""

Pack = Callable[[np.ndarray], np.ndarray]
Image = list[np.ndarray]
"""The pieces [n] uint8 of a file, which follow on each other in it."""


def shard_image(values: np.ndarray, chunk_rows: int, pack: Pack | None = None) -> Image:
    """The file of a shard with the rows `values`. Chunks that are not packed are views of `values`,
    so that nobody but the disk copies them.

    Args:
        values: [shard_rows, ...], contiguous, in the array's own type.
        chunk_rows: rows of an inner chunk.
        pack: what a chunk's bytes become; None leaves them as they are.
    """
    n = len(values) // chunk_rows
    chunks = values.reshape(n, -1).view(np.uint8)
    parts = list(chunks) if pack is None else [pack(chunk) for chunk in chunks]
    sizes = np.array([len(part) + CHECKSUM for part in parts], "<u8")
    index = np.stack((np.cumsum(sizes) - sizes, sizes), axis=1).reshape(-1).view(np.uint8)
    pieces = [piece for part in (*parts, index) for piece in (part, _checksum(part))]
    if values.nbytes < SMALL:
        return [np.concatenate(pieces)]
    return pieces


def size_of(image: Image) -> int:
    """Bytes of a file of these pieces."""
    return sum(map(len, image))


def packer(dtype: str, codec: Codec) -> Pack | None:
    """What a store of number format `dtype` does to a chunk of activations."""
    if codec == "raw":
        return None
    blosc = Blosc(
        cname=PACKING["cname"],
        clevel=PACKING["clevel"],
        shuffle=Blosc.SHUFFLE,
        typesize=np.dtype(PHYSICAL[dtype]).itemsize,
    )
    return lambda chunk: np.frombuffer(blosc.encode(chunk), np.uint8)


def _checksum(part: np.ndarray) -> np.ndarray:
    return np.frombuffer(google_crc32c.value(part).to_bytes(CHECKSUM, "little"), np.uint8)
