"""The rows of each sequence of a store, as columns that open in a fraction of a second.

Columns are arrays, not one Python object per sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.tokens.example_rows import ExampleRows


@dataclass(frozen=True, slots=True)
class SequenceSpan:
    """A sequence and its rows, `row_start` to `row_start + n_tokens` of every array.

    Attributes:
        withheld: its leading tokens that masking withholds.
        unread: its leading tokens that a decoder of the last ones does not read, masked or not.
    """

    example_id: str
    shard: int
    row_start: int
    n_tokens: int
    withheld: int
    unread: int = 0

    def keep_last(self, tokens: int | None) -> SequenceSpan:
        """Return the span as read by a decoder of the last `tokens`; None reads all."""
        unread = 0 if tokens is None else max(0, self.n_tokens - tokens)
        return replace(self, unread=unread) if unread else self


class SequenceIndex(ExampleRows[SequenceSpan]):
    """The span of each sequence by example id, in row order.

    Attributes:
        example_ids: [sequences] strings.
        shard, row_start, n_tokens, withheld: [sequences] int64.
    """

    def __init__(
        self,
        example_ids: pa.StringArray,
        *,
        shard: np.ndarray[Any, Any],
        row_start: np.ndarray[Any, Any],
        n_tokens: np.ndarray[Any, Any],
        withheld: np.ndarray[Any, Any],
    ) -> None:
        self.example_ids = example_ids
        self.shard, self.row_start, self.n_tokens, self.withheld = (
            np.ascontiguousarray(column, np.int64)
            for column in (shard, row_start, n_tokens, withheld)
        )

    @classmethod
    def read(cls, path: Path) -> SequenceIndex:
        """Read the index of sequences, index.parquet."""
        table = pq.read_table(path)
        names = ("shard", "row_start", "n_tokens", "withheld")
        ids = table["example_id"].combine_chunks()
        return cls(ids, **{name: table[name].to_numpy() for name in names})

    def to_parquet(self) -> bytes:
        """Return the bytes of index.parquet."""
        table = pa.table(
            {
                "example_id": self.example_ids,
                "row_start": pa.array(self.row_start, pa.int64()),
                "n_tokens": pa.array(self.n_tokens.astype(np.int32)),
                "shard": pa.array(self.shard.astype(np.int32)),
                "withheld": pa.array(self.withheld.astype(np.int32)),
            }
        )
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        return bytes(buffer.getvalue().to_pybytes())

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.n_tokens.sum())

    def at(self, number: int) -> SequenceSpan:
        """Return the span of the sequence that is `number`-th in row order."""
        return SequenceSpan(
            example_id=self.example_ids[number].as_py(),
            shard=int(self.shard[number]),
            row_start=int(self.row_start[number]),
            n_tokens=int(self.n_tokens[number]),
            withheld=int(self.withheld[number]),
        )

    def in_shard(self, shard: int) -> range:
        """Return the numbers, in row order, of the sequences in `shard`."""
        first, last = np.searchsorted(self.shard, [shard, shard + 1])
        return range(int(first), int(last))

    def spans_in(self, shard: int) -> list[SequenceSpan]:
        """Return the spans of the sequences in `shard`, in row order."""
        return [self.at(number) for number in self.in_shard(shard)]

    def examples_in(self, shard: int) -> list[str]:
        """Return the ids of the sequences in `shard`, in row order."""
        own = self.in_shard(shard)
        return list(self.example_ids.slice(own.start, len(own)).to_pylist())

    def rows_of(self, example_id: str) -> tuple[int, int, int]:
        """Return shard, first row and number of rows of an example, faster than `self[...]`.

        Raises:
            KeyError: it is not in the index.
        """
        n = self.number(example_id)
        shard, row_start, n_tokens = self._columns
        return shard[n], row_start[n], n_tokens[n]

    @cached_property
    def _columns(self) -> list[memoryview[int]]:
        # the same memory; reading a number from it takes a third of the time that numpy takes
        return [column.data for column in (self.shard, self.row_start, self.n_tokens)]
