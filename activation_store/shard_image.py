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

Pack = Callable[[np.ndarray], np.ndarray]


def shard_image(values: np.ndarray, chunk_rows: int, pack: Pack | None = None) -> np.ndarray:
    """The bytes [N] uint8 of the file of a shard with the rows `values`.

    Args:
        values: [shard_rows, ...], contiguous, in the array's own type.
        chunk_rows: rows of an inner chunk.
        pack: what a chunk's bytes become; None leaves them as they are.
    """
    n = len(values) // chunk_rows
    chunks = values.reshape(n, -1).view(np.uint8)
    parts = list(chunks) if pack is None else [pack(chunk) for chunk in chunks]
    index = np.empty((n, 2), "<u8")
    image = np.empty(sum(map(len, parts)) + n * (CHECKSUM + ENTRY) + CHECKSUM, np.uint8)
    end = 0
    for i, part in enumerate(parts):
        index[i] = end, len(part) + CHECKSUM
        end = _put(image, end, part)
    _put(image, end, index.reshape(-1).view(np.uint8))
    return image


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


def _put(image: np.ndarray, at: int, part: np.ndarray) -> int:
    """Put `part` and its checksum into `image` at byte `at`; the byte behind them."""
    image[at : at + len(part)] = part
    at += len(part)
    checksum = google_crc32c.value(part).to_bytes(CHECKSUM, "little")
    image[at : at + CHECKSUM] = np.frombuffer(checksum, np.uint8)
    return at + CHECKSUM
