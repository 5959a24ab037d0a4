"""One shard of one array as the bytes of its file: Zarr v3's sharded form, made in one go.

Inner chunks in row order, each packed and followed by its crc32c, then the index: offset and size
of each as two little-endian uint64, and the index's own crc32c. Zarr itself writes the same bytes
(a test compares them), but chunk by chunk through its pipeline, at a fraction of the disk's speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc

from activation_store.layout.arrays import PACKING, PHYSICAL
from activation_store.layout.config import Codec
from activation_store.layout.file_marks import Digest, Mark

CHECKSUM = 4
"""Bytes of a crc32c."""
ENTRY = 16
"""Bytes of a chunk in the index."""

Pack = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """The bytes of a file, in pieces that follow on each other in it.

    Attributes:
        parts: [n] uint8 each: the chunks in row order, then the index.
        checksums: the crc32c that stands behind the part of the same place.
        mark: size and digest of the whole file.
    """

    parts: list[np.ndarray]
    checksums: list[bytes]
    mark: Mark

    def pieces(self) -> list[memoryview | bytes]:
        """All pieces, in the file's order."""
        both = zip(self.parts, self.checksums, strict=True)
        return [piece for part, checksum in both for piece in (part.data, checksum)]

    def is_in(self, found: np.ndarray) -> bool:
        """Whether the bytes `found` [n] uint8 are these, by every checksum and by the size.

        The parts themselves are not looked at, so that only `found` has to come from memory.
        """
        if len(found) != self.mark[0]:
            return False
        at = 0
        for part, known in zip(self.parts, self.checksums, strict=True):
            end = at + len(part)
            if found[end : end + CHECKSUM].tobytes() != known or _checksum(found[at:end]) != known:
                return False
            at = end + CHECKSUM
        return True


def shard_image(
    values: np.ndarray,
    chunk_rows: int,
    pack: Pack | None = None,
    check: Callable[[np.ndarray], object] = len,
) -> Image:
    """The file of a shard with the rows `values`. Chunks that are not packed are views of `values`,
    so that nobody but the disk copies them; each is checked, packed, summed and hashed while it is
    in the CPU's cache.

    Args:
        values: [shard_rows, ...], contiguous, in the array's own type.
        chunk_rows: rows of an inner chunk.
        pack: what a chunk's bytes become; None leaves them as they are.
        check: called with each chunk's rows [chunk_rows, ...] before anything else is done to them.
    """
    digest, parts, checksums = Digest(), list[np.ndarray](), list[bytes]()

    def add(part: np.ndarray) -> None:
        parts.append(part)
        checksums.append(_checksum(part))
        digest.update(part.data)
        digest.update(checksums[-1])

    for rows in values.reshape(-1, chunk_rows, *values.shape[1:]):
        check(rows)
        chunk = rows.reshape(-1).view(np.uint8)
        add(chunk if pack is None else pack(chunk))
    sizes = np.array([len(part) + CHECKSUM for part in parts], "<u8")
    add(np.stack((np.cumsum(sizes) - sizes, sizes), axis=1).reshape(-1).view(np.uint8))
    size = sum(map(len, parts)) + CHECKSUM * len(parts)
    return Image(parts, checksums, (size, str(digest)))


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


def _checksum(part: np.ndarray) -> bytes:
    return google_crc32c.value(part).to_bytes(CHECKSUM, "little")
