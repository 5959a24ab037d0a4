"""One shard of one array as rows: memory-mapped where it is raw, decoded where it is not.

In a raw shard file (activation_store/layout/shard_image.py) the rows of a chunk are stored
uncompressed, so they can be read from the memory map without decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from activation_store.layout.shard_image import CHECKSUM_BYTES, INDEX_ENTRY_BYTES
from core.errors import DamagedError


class ShardRows(Protocol):
    """Rows of one shard; read-only."""

    nbytes: int
    """Bytes of memory that it holds on to, the page cache not counted."""

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows `start` to `stop` of the shard [stop - start, ...], read-only."""
        ...


class DecodedShard:
    """A shard in memory."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        values.flags.writeable = False  # callers get views of what the next caller gets
        self._values = values
        self.nbytes = values.nbytes

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows `start` to `stop` as a view."""
        return self._values[start:stop]


class MappedShard:
    """A raw shard file, mapped into memory.

    Args:
        path: the file, whose bytes were checked.
        rows: rows of the shard.
        chunk_rows: rows of an inner chunk.
        width: shape of a row.
        dtype: the type in which it is stored.

    Raises:
        DamagedError: it is not laid out as a raw shard of that shape.
    """

    nbytes = 0

    def __init__(
        self,
        path: Path,
        *,
        rows: int,
        chunk_rows: int,
        width: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        raw = np.asarray(np.memmap(path, np.uint8, "r"))
        n = rows // chunk_rows
        size = chunk_rows * int(np.prod(width, dtype=np.int64)) * dtype.itemsize
        if len(raw) != n * (size + CHECKSUM_BYTES + INDEX_ENTRY_BYTES) + CHECKSUM_BYTES:
            raise DamagedError(f"{path}: not a raw shard of {rows} rows.", path)
        entries = raw[-n * INDEX_ENTRY_BYTES - CHECKSUM_BYTES : -CHECKSUM_BYTES]
        index = entries.view("<u8").reshape(n, 2).tolist()
        if any(count != size + CHECKSUM_BYTES for _, count in index):
            raise DamagedError(f"{path}: its index is not that of a raw shard.", path)
        self._chunk_rows = chunk_rows
        self._chunks = [
            raw[offset : offset + size].view(dtype).reshape(chunk_rows, *width)
            for offset, _ in index
        ]

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows `start` to `stop`: a view within a chunk, a copy across chunks."""
        size = self._chunk_rows
        first, last = start // size, (stop - 1) // size
        if first == last:
            return self._chunks[first][start - first * size : stop - first * size]
        out = np.concatenate(
            (
                self._chunks[first][start - first * size :],
                *self._chunks[first + 1 : last],
                self._chunks[last][: stop - last * size],
            )
        )
        out.flags.writeable = False
        return out
