"""One shard of one array as the bytes of its file: Zarr v3's sharded form, made in one go.

Inner chunks in row order, each packed and followed by its crc32c, then the index: offset and size
of each as two little-endian uint64, and the index's own crc32c. Zarr itself writes the same bytes
(a test compares them), but chunk by chunk through its pipeline, at a fraction of the disk's speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from blake3 import blake3
from numcodecs.blosc import Blosc

from activation_store.layout.arrays import PACKING, PHYSICAL
from activation_store.layout.config import Codec
from activation_store.layout.file_digests import FileDigest

CHECKSUM_BYTES = 4
"""Bytes of a crc32c."""
INDEX_ENTRY_BYTES = 16
"""Bytes of a chunk in the index."""

Array = np.ndarray[Any, Any]
ChunkPacker = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, eq=False)
class ShardImage:
    """The bytes of a shard's file, in pieces that follow on each other in it.

    Attributes:
        chunks: [n] uint8 each: the inner chunks in row order, then the index.
        checksums: the crc32c that stands behind each of `chunks`.
        digest: size and digest of the whole file.
    """

    chunks: list[Array]
    checksums: list[bytes]
    digest: FileDigest

    def pieces(self) -> list[memoryview | bytes]:
        """Return all pieces, in the file's order."""
        both = zip(self.chunks, self.checksums, strict=True)
        return [piece for chunk, checksum in both for piece in (chunk.data, checksum)]

    def matches(self, found: Array) -> bool:
        """Tell whether the bytes `found` [n] uint8 are this image: its size and every checksum.

        The chunks themselves are not looked at, so that only `found` has to come from memory.
        """
        if len(found) != self.digest.size:
            return False
        start = 0
        for chunk, known in zip(self.chunks, self.checksums, strict=True):
            end = start + len(chunk)
            after = end + CHECKSUM_BYTES
            if found[end:after].tobytes() != known or crc32c_bytes(found[start:end]) != known:
                return False
            start = after
        return True


def make_shard_image(
    values: Array,
    chunk_rows: int,
    pack: ChunkPacker | None = None,
    check: Callable[[Array], object] = len,
) -> ShardImage:
    """Make the file of a shard.

    Chunks that are not packed are views of `values`, so that nothing but the disk copies them; each
    is checked, packed, summed and hashed while it is in the CPU's cache.

    Args:
        values: its rows [shard_rows, ...], contiguous, in the array's own type.
        chunk_rows: rows of an inner chunk.
        pack: packs a chunk's bytes; None leaves them as they are.
        check: called with each chunk's rows [chunk_rows, ...] before anything else is done to them.
    """
    hasher, chunks, checksums = blake3(), list[Array](), list[bytes]()

    def add(chunk: Array) -> None:
        chunks.append(chunk)
        checksums.append(crc32c_bytes(chunk))
        hasher.update(chunk.data)
        hasher.update(checksums[-1])

    for rows in values.reshape(-1, chunk_rows, *values.shape[1:]):
        check(rows)
        chunk = rows.reshape(-1).view(np.uint8)
        add(chunk if pack is None else pack(chunk))
    sizes = np.array([len(chunk) + CHECKSUM_BYTES for chunk in chunks], "<u8")
    add(np.stack((np.cumsum(sizes) - sizes, sizes), axis=1).reshape(-1).view(np.uint8))
    size = sum(map(len, chunks)) + CHECKSUM_BYTES * len(chunks)
    return ShardImage(chunks, checksums, FileDigest(size, hasher.hexdigest()))


def chunk_packer(dtype: str, codec: Codec) -> ChunkPacker | None:
    """Return what packs a chunk of activations of this number format; None where nothing does."""
    if codec == "raw":
        return None
    blosc = Blosc(
        cname=PACKING["cname"],
        clevel=PACKING["clevel"],
        shuffle=Blosc.SHUFFLE,
        typesize=np.dtype(PHYSICAL[dtype]).itemsize,
    )
    return lambda chunk: np.frombuffer(blosc.encode(chunk), np.uint8)


def crc32c_bytes(chunk: Array) -> bytes:
    """Return the crc32c of a contiguous chunk as it stands behind it in a file."""
    return int(google_crc32c.value(chunk)).to_bytes(CHECKSUM_BYTES, "little")
