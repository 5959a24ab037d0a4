"""The layout of a store: the shard and rows of every sequence, planned before any forward pass.

Sequences are laid out by length (then by example id), so that those of one batch are equally long,
and padding is close to none. The plan is a function of tokens and config alone, so any number of
workers that write its shards in any order make the same store. Where another store has whole shards
that fit (activation_store/write/reuse.py), they come first, as they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from activation_store.layout.arrays import (
    INDEX_FILE,
    PHYSICAL,
    PLAN_FILE,
    STORE_SCHEMA,
    array_metadata,
)
from activation_store.layout.checksummed_json import read_checksummed_json, write_checksummed_json
from activation_store.layout.config import CaptureConfig, Codec
from activation_store.layout.file_digests import FileDigest, digest_file
from activation_store.layout.index import SequenceIndex, SequenceSpan
from activation_store.layout.shard_image import CHECKSUM_BYTES, INDEX_ENTRY_BYTES
from activation_store.tokens.token_table import TokenTable
from core.documents.canonical import digest
from core.errors import ConfigError, StoreError
from core.files import write_files
from core.records.table_files import DROPPED_FILE, write_dropped
from core.records.tables import Dropped

PLAN_FIELDS = ("schema", "digest", "layers", "n_shards", "files")
"""Fields that every plan.json has."""


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
        layers: read layers, counted from 0.
        dtype: number format in which activations are stored.
        compute_dtype: number format in which the target runs.
        target: digests of the target's files.
        digest: over everything that decides the store's content.
        shared: the first shards, as they are in other stores: digest of the plan and number there.
    """

    index: SequenceIndex
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
        """Exact bytes of all shard files under the codec `raw`, before any is written."""
        chunks = self.shard_rows // self.chunk_rows
        overhead = chunks * (CHECKSUM_BYTES + INDEX_ENTRY_BYTES) + CHECKSUM_BYTES
        row = len(self.layers) * self.d_model * np.dtype(PHYSICAL[self.dtype]).itemsize + 4 + 1
        return self.n_shards * (self.shard_rows * row + (len(self.layers) + 2) * overhead)

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


def write_plan(root: Path, plan: Plan, dropped: Sequence[Dropped] = ()) -> None:
    """Write everything of a store that is known before any forward pass.

    That is the arrays' metadata, index.parquet, dropped.parquet, and last plan.json, which holds
    the size and digest of each of the others.

    Raises:
        StorageError: the disk is full or read-only.
    """
    metadata = array_metadata(
        rows=plan.n_shards * plan.shard_rows,
        d_model=plan.d_model,
        layers=plan.layers,
        dtype=plan.dtype,
        shard_rows=plan.shard_rows,
        chunk_rows=plan.chunk_rows,
        codec=plan.codec,
    )
    contents = {**metadata, INDEX_FILE: plan.index.to_parquet()}
    write_files({root / name: content for name, content in contents.items()})
    write_dropped(root / DROPPED_FILE, dropped)
    files = {name: list(digest_file(root / name)) for name in sorted([*contents, DROPPED_FILE])}
    write_checksummed_json(root / PLAN_FILE, {**describe_plan(plan), "files": files})


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return the fields of plan.json that come from the plan."""
    return {
        "schema": STORE_SCHEMA,
        "digest": plan.digest,
        "layers": list(plan.layers),
        "layer_convention": "output of block k, counted from 0, before any final norm",
        "d_model": plan.d_model,
        "dtype": plan.dtype,
        "compute_dtype": plan.compute_dtype,
        "codec": plan.codec,
        "batch_tokens": plan.batch_tokens,
        "shard_rows": plan.shard_rows,
        "chunk_rows": plan.chunk_rows,
        "n_shards": plan.n_shards,
        "sequences": len(plan.index),
        "tokens": plan.tokens,
        "target": plan.target,
        "shared": [list(origin) for origin in plan.shared],
    }


def read_plan(root: Path) -> dict[str, Any]:
    """Read plan.json.

    Raises:
        DamagedError: it is missing or not as it was written.
        StoreError: it is of another version of the layout.
    """
    plan = read_checksummed_json(root / PLAN_FILE, PLAN_FIELDS)
    if plan["schema"] != STORE_SCHEMA:
        raise StoreError(
            f"store {root}: its layout is version {plan['schema']}, this program reads "
            f"{STORE_SCHEMA}. Read it with the latentqa that wrote it, or dump again."
        )
    return {**plan, "files": {name: FileDigest(*known) for name, known in plan["files"].items()}}


def plan_files(root: Path) -> list[Path]:
    """Return the files that `write_plan` wrote.

    Raises:
        DamagedError: plan.json is missing or not as it was written.
    """
    return [root / PLAN_FILE, *(root / name for name in read_plan(root)["files"])]
