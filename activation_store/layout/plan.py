"""Where every sequence will lie, decided before any forward pass.

Sequences are laid out by length (then by example id), so that those of one batch are equally long,
and padding is close to none. The plan is a function of tokens and config alone; any number of
workers filling its shards in any order make the same store. Where another store has whole shards
that fit (activation_store/write/reuse.py), they come first, as they are there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activation_store.layout.arrays import (
    INDEX_FILE,
    PHYSICAL,
    PLAN_FILE,
    STORE_SCHEMA,
    array_metadata,
)
from activation_store.layout.config import CaptureConfig, Codec
from activation_store.layout.sealed_json import read_sealed, write_sealed
from activation_store.target.tokens import Tokens
from core.canonical import digest
from core.errors import ConfigError
from core.files import sha256_file, write_files
from core.table_files import DROPPED_FILE, write_dropped
from core.tables import Dropped

PLAN_FIELDS = ("schema", "digest", "layers", "n_shards", "files")
"""What a plan.json has in any case."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A sequence and its place: rows `row_start` to `row_start + n_tokens` of every array."""

    example_id: str
    shard: int
    row_start: int
    n_tokens: int
    withheld: int


def _shard_of(sequence: Placed) -> int:
    return sequence.shard


@dataclass(frozen=True, slots=True)
class Shared:
    """A shard of another store, every sequence of which is wanted here.

    Attributes:
        plan: digest of the plan of that store.
        shard: its number there.
        examples: ids of its sequences, in row order.
    """

    plan: str
    shard: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layout of a store.

    Attributes:
        sequences: in row order.
        layers: read layers, counted from 0.
        digest: of everything that the store will hold but the activations.
        shared: the first shards, as they are in other stores.
    """

    sequences: tuple[Placed, ...]
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
    shared: tuple[Shared, ...] = ()

    @property
    def raw_bytes(self) -> int:
        """Exact bytes of all shard files under the codec `raw`, before any is written."""
        chunks = self.shard_rows // self.chunk_rows
        # behind each chunk its checksum, behind all of them an index with a checksum of its own
        apart = chunks * (4 + 16) + 4
        row = len(self.layers) * self.d_model * np.dtype(PHYSICAL[self.dtype]).itemsize + 4 + 1
        return self.n_shards * (self.shard_rows * row + (len(self.layers) + 2) * apart)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(s.n_tokens for s in self.sequences)

    def shard(self, shard: int) -> list[Placed]:
        """The sequences of one shard, in row order."""
        first = bisect_left(self.sequences, shard, key=_shard_of)
        last = bisect_left(self.sequences, shard + 1, lo=first, key=_shard_of)
        return list(self.sequences[first:last])

    def batches(self, shard: int) -> Iterator[list[Placed]]:
        """The forward passes of one shard: neighbours in length, at most `batch_tokens` tokens of
        them padded to the longest, and always at least one sequence."""
        batch: list[Placed] = []
        for sequence in self.shard(shard):
            longest = max(sequence.n_tokens, *(s.n_tokens for s in batch), 0)
            if batch and longest * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(sequence)
        if batch:
            yield batch


def make_plan(
    rows: dict[str, Tokens],
    *,
    config: CaptureConfig,
    layers: tuple[int, ...],
    d_model: int,
    target: dict[str, str],
    vectors: str | None = None,
    shared: Sequence[Shared] = (),
) -> Plan:
    """Lay out sequences by example id.

    Args:
        rows: tokens by example id, none longer than `config.max_tokens`.
        layers: `config.layers`, counted from 0.
        target: digests of the model whose activations they will be.
        vectors: digest of vectors that are imported; None where the target computes them.
        shared: shards of other stores that come first, their sequences among `rows`.

    Raises:
        ConfigError: shards are too small for the longest sequence.
    """
    order = sorted(rows, key=lambda name: (len(rows[name].ids), name))
    total = sum(len(rows[name].ids) for name in order)
    longest = len(rows[order[-1]].ids) if order else 0
    most, chunk_rows = config.shard_and_chunk_rows(d_model, longest)
    if longest > most:
        raise ConfigError(
            f"dump.shard_rows: a sequence has {longest} tokens and must fit into one shard, "
            f"got {most}. Make shards larger or dump.max_tokens smaller."
        )
    # a store smaller than a shard is one small shard
    shard_rows = min(most, max(1, -(-total // chunk_rows)) * chunk_rows)
    here = {name for part in shared for name in part.examples}
    rest = _by_length([name for name in order if name not in here], rows, shard_rows)
    placed = []
    for shard, names in enumerate([*(part.examples for part in shared), *rest]):
        start = shard * shard_rows
        for name in names:
            placed.append(Placed(name, shard, start, len(rows[name].ids), rows[name].withheld))
            start += len(rows[name].ids)
    return Plan(
        sequences=tuple(placed),
        layers=layers,
        d_model=d_model,
        dtype=config.store_dtype,
        compute_dtype=config.compute_dtype,
        batch_tokens=config.batch_tokens,
        shard_rows=shard_rows,
        chunk_rows=chunk_rows,
        n_shards=len(shared) + len(rest),
        target=target,
        codec=config.codec,
        shared=tuple(shared),
        digest=digest(
            {
                "rows": [[n, rows[n].ids.tolist(), rows[n].segments.tolist()] for n in order],
                "withheld": [rows[n].withheld for n in order],
                "config": _hashed(config, most, chunk_rows),
                "layers": layers,
                "target": target,
                **({} if vectors is None else {"vectors": vectors}),
                **({"shared": [part.examples for part in shared]} if shared else {}),
            }
        ),
    )


def _by_length(
    order: Sequence[str], rows: dict[str, Tokens], shard_rows: int
) -> list[tuple[str, ...]]:
    """The example ids of each shard, in row order; each shard as full as the next one lets it."""
    shards: list[list[str]] = [[]]
    used = 0
    for name in order:
        length = len(rows[name].ids)
        if used + length > shard_rows:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += length
    return [tuple(shard) for shard in shards if shard]


def _hashed(config: CaptureConfig, shard_rows: int, chunk_rows: int) -> dict[str, Any]:
    # raw plans keep the digest that they had before there was another codec
    value = config.model_dump(mode="json") | {"shard_rows": shard_rows, "chunk_rows": chunk_rows}
    return {k: v for k, v in value.items() if (k, v) != ("codec", "raw")}


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
    contents = {**metadata, INDEX_FILE: _index(plan)}
    write_files({root / name: content for name, content in contents.items()})
    write_dropped(root / DROPPED_FILE, dropped)
    files = {
        name: [(root / name).stat().st_size, sha256_file(root / name)]
        for name in sorted([*metadata, INDEX_FILE, DROPPED_FILE])
    }
    write_sealed(root / PLAN_FILE, {**describe(plan), "files": files})


def plan_files(root: Path) -> list[Path]:
    """The files that `write_plan` wrote.

    Raises:
        DamagedError: plan.json is missing or not as it was written.
    """
    plan = read_sealed(root / PLAN_FILE, PLAN_FIELDS)
    return [root / PLAN_FILE, *(root / name for name in plan["files"])]


def _index(plan: Plan) -> bytes:
    table = pa.table(
        {
            "example_id": pa.array([s.example_id for s in plan.sequences], pa.string()),
            "row_start": pa.array([s.row_start for s in plan.sequences], pa.int64()),
            "n_tokens": pa.array([s.n_tokens for s in plan.sequences], pa.int32()),
            "shard": pa.array([s.shard for s in plan.sequences], pa.int32()),
            "withheld": pa.array([s.withheld for s in plan.sequences], pa.int32()),
        }
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def describe(plan: Plan) -> dict[str, Any]:
    """What plan.json holds of the plan itself."""
    return {
        "schema": STORE_SCHEMA,
        "digest": plan.digest,
        "layers": list(plan.layers),
        "layer_convention": "output of block k, counted from 0, before any final norm",
        "d_model": plan.d_model,
        "dtype": plan.dtype,
        "compute_dtype": plan.compute_dtype,
        "batch_tokens": plan.batch_tokens,
        "shard_rows": plan.shard_rows,
        "chunk_rows": plan.chunk_rows,
        "n_shards": plan.n_shards,
        "sequences": len(plan.sequences),
        "tokens": plan.tokens,
        "target": plan.target,
        **({} if plan.codec == "raw" else {"codec": plan.codec}),
        **({"shared": [[s.plan, s.shard] for s in plan.shared]} if plan.shared else {}),
    }
