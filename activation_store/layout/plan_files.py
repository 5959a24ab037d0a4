"""What of a store is written before the target runs: the plan, and the files that it names.

These are the arrays' metadata, the index, token ids and segments, and the rows that were left out.
plan.json is written last, with the size and digest of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.arrays import (
    INDEX_FILE,
    PLAN_FILE,
    STORE_SCHEMA,
    TOKEN_ARRAYS,
    array_file,
    array_metadata,
)
from activation_store.layout.checksummed_json import read_checksummed_json, write_checksummed_json
from activation_store.layout.file_digests import (
    FileDigest,
    digest_bytes,
    digest_file,
    find_damage,
)
from activation_store.layout.plan import Plan
from activation_store.layout.shard_image import crc32c_bytes
from activation_store.tokens.token_table import TokenTable
from core.errors import DamagedError, StoreError
from core.files import write_files
from core.records.table_files import DROPPED_FILE, write_dropped
from core.records.tables import Dropped

PLAN_FIELDS = ("schema", "digest", "layers", "n_shards", "files")
"""Fields that every plan.json has."""


def write_plan(root: Path, plan: Plan, rows: TokenTable, dropped: Sequence[Dropped] = ()) -> None:
    """Write everything of a store that is known before any forward pass.

    Args:
        root: the store's folder.
        plan: its plan.
        rows: the tokens that the plan lays out.
        dropped: rows that are not in the store.

    Raises:
        StoreError: a token id is negative.
        DamagedError: what was read back is not what was written.
        StorageError: the disk is full or read-only.
    """
    files = write_tokens(root, plan, rows)
    metadata = array_metadata(
        rows=plan.n_shards * plan.shard_rows,
        d_model=plan.d_model,
        layers=plan.layers,
        dtype=plan.dtype,
        shard_rows=plan.shard_rows,
        chunk_rows=plan.chunk_rows,
        token_rows=plan.token_rows,
        codec=plan.codec,
    )
    contents = {**metadata, INDEX_FILE: plan.index.to_parquet()}
    write_files({root / name: content for name, content in contents.items()})
    files |= {name: digest_bytes(content) for name, content in contents.items()}
    for name in find_damage(root, files):
        raise DamagedError(f"{root / name}: read back other bytes than were written.", root / name)
    write_dropped(root / DROPPED_FILE, dropped)
    files[DROPPED_FILE] = digest_file(root / DROPPED_FILE)
    listed = {name: list(known) for name, known in sorted(files.items())}
    write_checksummed_json(root / PLAN_FILE, {**describe_plan(plan), "files": listed})


def write_tokens(root: Path, plan: Plan, rows: TokenTable) -> dict[str, FileDigest]:
    """Write token ids and segments; return the digest of each file by its path below `root`.

    A file is one chunk as Zarr writes it: little-endian values, then their crc32c.

    Raises:
        StoreError: a token id is negative.
        StorageError: the disk is full or read-only.
    """
    starts, digests = plan.index.row_start, dict[str, FileDigest]()
    for number in range(plan.token_files):
        first, end = number * plan.token_rows, (number + 1) * plan.token_rows
        content = {
            name: np.zeros(plan.token_rows, np.dtype(kind).newbyteorder("<"))
            for name, kind in TOKEN_ARRAYS.items()
        }
        for sequence in range(*starts.searchsorted([first, end])):
            own, start = rows.at(plan.order[sequence]), starts[sequence] - first
            content["tokens"][start : start + len(own.ids)] = own.ids
            content["segments"][start : start + len(own.ids)] = own.segments
        if (negative := content["tokens"] < 0).any():
            row = first + int(negative.argmax())
            example = plan.index.at(int(starts.searchsorted(row, "right")) - 1).example_id
            raise StoreError(f"example {example}: a token id is negative.")
        files = {
            array_file(name, number): values.tobytes() + crc32c_bytes(values)
            for name, values in content.items()
        }
        write_files({root / name: data for name, data in files.items()})
        digests |= {name: digest_bytes(data) for name, data in files.items()}
    return digests


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
        "token_rows": plan.token_rows,
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
