"""Import of vectors that another program captured, as a store like any other.

Target and layer are declared by the caller, not computed; the target's digests bind the store as
after a dump. An imported store has no canary check, and its `canary.json` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from activation_store.exchange.vector_sources import VectorSource
from activation_store.layout.arrays import CANARY_FILE, layer_array
from activation_store.layout.checksummed_json import write_checksummed_json
from activation_store.layout.config import CaptureConfig, Codec
from activation_store.layout.plan import plan_layout
from activation_store.layout.plan_files import write_plan
from activation_store.layout.root_record import write_root
from activation_store.target.host_copy import to_stored
from activation_store.write.shard_builder import begin_shard
from activation_store.write.shard_writer import ShardWriter
from core.config import Config
from core.errors import DataError
from core.files import new_folder


class VectorImport(Config):
    """Settings of an import of vectors: their block, and how they are laid out."""

    layer: int = Field(ge=0)
    """Block, counted from 0, whose output they are."""
    codec: Codec = "raw"
    """How they are packed."""
    shard_rows: int | None = Field(default=None, ge=256)
    """Rows (tokens) of one shard; null as in `dump.shard_rows`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """The store that an import made."""

    sequences: int
    tokens: int
    layer: int
    d_model: int
    store_dtype: str
    shards: int


def import_vectors(
    source: VectorSource, out: Path, *, config: VectorImport, target: dict[str, str]
) -> ImportResult:
    """Write `source` as a store to the new folder `out`.

    Args:
        source: the vectors.
        out: new folder.
        config: their layer, and how they are laid out.
        target: digests of the model that the vectors are declared to be of
            (`resolve_model(ref).digests()`).

    Raises:
        DataError: there is no example.
        StoreError: a vector is not finite.
        StorageError: the disk is full, or something stands at `out`.
    """
    if not len(source.rows):
        raise DataError(f"{source.path}: has no example to import.")
    capture = CaptureConfig(
        layers=(config.layer,),
        compute_dtype=source.dtype,
        store_dtype=source.dtype,
        codec=config.codec,
        shard_rows=config.shard_rows,
        max_tokens=max(8, int(source.rows.lengths.max())),
    )
    plan = plan_layout(
        source.rows,
        config=capture,
        layers=(config.layer,),
        d_model=source.d_model,
        target=target,
        vectors=source.digest,
    )
    with new_folder(out) as aside:
        write_plan(aside, plan, source.rows)
        with ShardWriter(aside, plan) as writer:
            for shard in range(plan.n_shards):
                content = begin_shard(plan, plan.layers)
                for s in plan.shard(shard):
                    vectors = _as_stored(source.read(s.example_id), source.dtype)
                    content[layer_array(config.layer)][plan.rows_of(s)] = vectors
                writer.submit(shard, content)
        canary = {"rows": 0, "tokens": 0, "max_relative": 0.0, "tolerance": 0.0}
        ended = {**canary, "imported": source.digest, "root": write_root(aside)}
        write_checksummed_json(aside / CANARY_FILE, ended)
    return ImportResult(
        sequences=len(plan.index),
        tokens=plan.tokens,
        layer=config.layer,
        d_model=plan.d_model,
        store_dtype=plan.dtype,
        shards=plan.n_shards,
    )


def _as_stored(values: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Return vectors of a source, a tensor or an array, in the type in which `dtype` is stored."""
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return to_stored(values, dtype)
