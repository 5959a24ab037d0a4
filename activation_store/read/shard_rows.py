"""One file of one array as rows, memory-mapped where it is raw.

In a raw shard file (activation_store/layout/shard_image.py) the rows of a chunk are stored
uncompressed, so they can be read from the memory map without decoding. A file of token ids or
segments (activation_store/layout/plan_files.py) is one such chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.shard_image import CHECKSUM_BYTES, INDEX_ENTRY_BYTES
from core.errors import DamagedError


class ShardRows:
    """Rows of one file; read-only.

    Args:
        chunks: its rows in order, equally many in each chunk, read-only.

    Attributes:
        nbytes: bytes of memory that it holds on to, the page cache not counted.
    """

    def __init__(self, chunks: Sequence[np.ndarray[Any, Any]], *, nbytes: int = 0) -> None:
        self._chunks, self._chunk_rows, self.nbytes = chunks, len(chunks[0]), nbytes

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return rows `start` to `stop` of the file, read-only.

        Returns:
            [stop - start, ...], a view within a chunk and a copy across chunks.
        """
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


def map_chunk(path: Path, *, rows: int, dtype: np.dtype[Any]) -> ShardRows:
    """Map a file of token ids or segments into memory.

    Args:
        path: the file, whose bytes were checked.
        rows: its rows.
        dtype: the type in which it is stored.

    Raises:
        DamagedError: it is not laid out as so many rows.
    """
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    if len(raw) != rows * dtype.itemsize + CHECKSUM_BYTES:
        raise DamagedError(f"{path}: not a chunk of {rows} rows.", path)
    return ShardRows([raw[:-CHECKSUM_BYTES].view(dtype)])


def map_shard(
    path: Path, *, rows: int, chunk_rows: int, width: tuple[int, ...], dtype: np.dtype[Any]
) -> ShardRows:
    """Map a raw shard file into memory.

    Args:
        path: the file, whose bytes were checked.
        rows: rows of the shard.
        chunk_rows: rows of an inner chunk.
        width: shape of a row.
        dtype: the type in which it is stored.

    Raises:
        DamagedError: it is not laid out as a raw shard of that shape.
    """
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    n = rows // chunk_rows
    size = chunk_rows * int(np.prod(width, dtype=np.int64)) * dtype.itemsize
    if len(raw) != n * (size + CHECKSUM_BYTES + INDEX_ENTRY_BYTES) + CHECKSUM_BYTES:
        raise DamagedError(f"{path}: not a raw shard of {rows} rows.", path)
    entries = raw[-n * INDEX_ENTRY_BYTES - CHECKSUM_BYTES : -CHECKSUM_BYTES]
    index = entries.view("<u8").reshape(n, 2).tolist()
    if any(count != size + CHECKSUM_BYTES for _, count in index):
        raise DamagedError(f"{path}: its index is not that of a raw shard.", path)
    return ShardRows(
        [raw[offset : offset + size].view(dtype).reshape(chunk_rows, *width) for offset, _ in index]
    )
