"""The layout of a store: the shard and rows of every sequence, planned before any forward pass.

Sequences are laid out by length (then by example id), so that those of one batch are equally long,
and padding is close to none. The plan is a function of tokens and config alone, so any number of
workers that write its shards in any order make the same store. Where another store has whole shards
that fit (activation_store/write/reuse.py), they come first, as they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from activation_store.layout.arrays import PHYSICAL, STORE_SCHEMA, TOKEN_ARRAYS
from activation_store.layout.config import CaptureConfig, Codec
from activation_store.layout.index import SequenceIndex, SequenceSpan
from activation_store.layout.shard_image import CHECKSUM_BYTES, INDEX_ENTRY_BYTES
from activation_store.tokens.token_table import TokenTable
from core.documents.canonical import digest
from core.errors import ConfigError

_TOKEN_ROWS = 1 << 20
"""Rows of one file of token ids or segments, about, where a store has so many."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedShard:
    """A shard of another store, every sequence of which is wanted here.

    Attributes:
        plan: digest of the plan of that store.
        shard: its number there.
        rows: [sequences] numbers of its sequences in the table of tokens, in row order.
    """

    plan: str
    shard: int
    rows: np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The layout of a store.

    Attributes:
        index: the span of every sequence.
        order: [sequences] int64, their numbers in the table of tokens, in row order.
        layers: read layers, counted from 0.
        dtype: number format in which activations are stored.
        compute_dtype: number format in which the target runs.
        target: digests of the target's files.
        digest: over everything that decides the store's content.
        shared: the first shards, as they are in other stores: digest of the plan and number there.
    """

    index: SequenceIndex
    order: np.ndarray[Any, Any]
    layers: tuple[int, ...]
    d_model: int
    dtype: str
    compute_dtype: str
    batch_tokens: int
    shard_rows: int
    chunk_rows: int
    n_shards: int
    target: dict[str, str]
    digest: str
    codec: Codec = "raw"
    shared: tuple[tuple[str, int], ...] = ()

    @property
    def raw_bytes(self) -> int:
        """Exact bytes of all array files under the codec `raw`, before any is written."""
        chunks = self.shard_rows // self.chunk_rows
        overhead = chunks * (CHECKSUM_BYTES + INDEX_ENTRY_BYTES) + CHECKSUM_BYTES
        row = self.d_model * np.dtype(PHYSICAL[self.dtype]).itemsize
        one_file = self.shard_rows * row + overhead
        return self.n_shards * len(self.layers) * one_file + self.token_bytes

    @property
    def token_bytes(self) -> int:
        """Exact bytes of all files of token ids and segments."""
        widths = (np.dtype(kind).itemsize for kind in TOKEN_ARRAYS.values())
        one_of_each = sum(self.token_rows * width + CHECKSUM_BYTES for width in widths)
        return self.token_files * one_of_each

    @property
    def token_rows(self) -> int:
        """Rows of one file of token ids or segments: those of so many whole shards."""
        return self.shard_rows * max(1, min(self.n_shards, _TOKEN_ROWS // self.shard_rows))

    @property
    def token_files(self) -> int:
        """Files of token ids, and as many of segments."""
        return -(-self.n_shards * self.shard_rows // self.token_rows)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.index.tokens

    def shard(self, shard: int) -> list[SequenceSpan]:
        """Return the sequences of one shard, in row order."""
        return self.index.spans_in(shard)

    def rows_of(self, span: SequenceSpan) -> slice:
        """Return the rows of a sequence, counted from the first of its shard."""
        start = span.row_start - span.shard * self.shard_rows
        return slice(start, start + span.n_tokens)

    def shard_tokens(self, shard: int) -> int:
        """Return the number of tokens in one shard."""
        own = self.index.in_shard(shard)
        return int(self.index.n_tokens[own.start : own.stop].sum())

    def batches(self, shard: int) -> Iterator[list[SequenceSpan]]:
        """Yield the sequences of each forward pass of one shard.

        They are neighbours in length, at most `batch_tokens` tokens when padded to the longest, and
        always at least one.
        """
        batch: list[SequenceSpan] = []
        for sequence in self.shard(shard):
            longest = max(sequence.n_tokens, *(s.n_tokens for s in batch), 0)
            if batch and longest * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(sequence)
        if batch:
            yield batch


def plan_layout(
    rows: TokenTable,
    *,
    config: CaptureConfig,
    layers: tuple[int, ...],
    d_model: int,
    target: dict[str, str],
    vectors: str | None = None,
    shared: Sequence[SharedShard] = (),
) -> Plan:
    """Lay sequences out into shards and rows.

    Args:
        rows: their tokens, none longer than `config.max_tokens`.
        config: what is kept, and how.
        layers: `config.layers`, counted from 0.
        d_model: width of an activation.
        target: digests of the model whose activations they will be.
        vectors: digest of vectors that are imported; None where the target computes them.
        shared: shards of other stores that come first, their sequences among `rows`.

    Raises:
        ConfigError: shards are too small for the longest sequence.
    """
    longest = int(rows.lengths.max(initial=0))
    max_shard_rows, chunk_rows = config.shard_and_chunk_rows(d_model, longest)
    if longest > max_shard_rows:
        raise ConfigError(
            f"dump.shard_rows: a sequence has {longest} tokens and must fit into one shard, "
            f"got {max_shard_rows}. Make shards larger or dump.max_tokens smaller."
        )
    # a store smaller than a shard is one small shard
    chunks = max(1, -(-int(rows.lengths.sum()) // chunk_rows))
    shard_rows = min(max_shard_rows, chunks * chunk_rows)
    shards = [*(part.rows for part in shared), *_fill_shards(rows, shared, shard_rows)]
    order = np.concatenate([np.empty(0, np.int64), *shards])
    index = _index_of(rows, shards, order, shard_rows)
    plan_digest = digest(
        {
            "schema": STORE_SCHEMA,
            "sequences": _digest_sequences(index, rows, order),
            "config": config.model_dump(mode="json")
            # how many run together decides no more than rounding: the default stands for all
            | {"shard_rows": max_shard_rows, "chunk_rows": chunk_rows, "batch_tokens": 2048},
            "layers": layers,
            "target": target,
            "vectors": vectors,
        }
    )
    return Plan(
        index=index,
        order=order,
        layers=layers,
        d_model=d_model,
        dtype=config.store_dtype,
        compute_dtype=config.compute_dtype,
        batch_tokens=config.batch_tokens,
        shard_rows=shard_rows,
        chunk_rows=chunk_rows,
        n_shards=len(shards),
        target=target,
        codec=config.codec,
        shared=tuple((part.plan, part.shard) for part in shared),
        digest=plan_digest,
    )


def _fill_shards(
    rows: TokenTable, shared: Sequence[SharedShard], shard_rows: int
) -> list[np.ndarray[Any, Any]]:
    """Return the row numbers of each shard that no other store has, each as full as can be."""
    keys = pa.table({"length": rows.lengths, "example_id": rows.example_ids})
    by_length = [("length", "ascending"), ("example_id", "ascending")]
    order = pc.sort_indices(keys, by_length).to_numpy().astype(np.int64)
    if shared:
        order = order[~np.isin(order, np.concatenate([part.rows for part in shared]))]
    ends = np.cumsum(rows.lengths[order])
    out, first, used = [], 0, 0
    while first < len(order):
        stop = int(np.searchsorted(ends, used + shard_rows, side="right"))
        out.append(order[first:stop])
        first, used = stop, int(ends[stop - 1])
    return out


def _index_of(
    rows: TokenTable,
    shards: Sequence[np.ndarray[Any, Any]],
    order: np.ndarray[Any, Any],
    shard_rows: int,
) -> SequenceIndex:
    """Return the spans of sequences whose row numbers are `shards`, one after the other `order`."""
    shard = np.repeat(np.arange(len(shards)), [len(own) for own in shards])
    lengths = rows.lengths[order]
    starts = np.cumsum(lengths) - lengths
    # each shard's rows begin at a multiple of shard_rows
    first = np.searchsorted(shard, np.arange(len(shards)))
    row_start = shard * shard_rows + starts - starts[first][shard] if len(order) else starts
    return SequenceIndex(
        rows.example_ids.take(pa.array(order)),
        shard=shard,
        row_start=row_start,
        n_tokens=lengths,
        withheld=rows.withheld[order],
    )


def _digest_sequences(
    index: SequenceIndex, rows: TokenTable, order: np.ndarray[Any, Any]
) -> dict[str, str]:
    """Return digests over ids, spans, tokens and segments, in row order."""
    names, tokens, segments = blake3(), blake3(), blake3()
    for batch in pa.chunked_array([index.example_ids]).chunks:
        names.update(np.asarray(pc.binary_length(batch), np.int64).tobytes())
        names.update("".join(batch.to_pylist()).encode())
    for number in order.tolist():
        row = rows.at(number)
        tokens.update(row.ids.view(np.uint8).data)
        segments.update(row.segments.data)
    spans = blake3()
    for column in (index.shard, index.row_start, index.n_tokens, index.withheld):
        spans.update(column.view(np.uint8).data)
    found = {"example_ids": names, "spans": spans, "tokens": tokens, "segments": segments}
    return {name: value.hexdigest() for name, value in found.items()}
