"""The commit log: a shard exists for readers when its record does, and not before.

A shard is filled in memory, written whole, synced, read back and compared; then its record, with
the digest of each of its files, is renamed into place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from activation_store.layout import COMMITS, shard_file
from activation_store.plan import Plan
from generators.errors import DamagedError, StoreError
from generators.files import fsync_dir, fsync_file, sha256_file, storage_errors, write_json


@dataclass(frozen=True, slots=True)
class Commit:
    """The record of a whole shard: its files below the store with (bytes, sha256)."""

    shard: int
    sequences: int
    tokens: int
    files: dict[str, tuple[int, str]]


def commit_path(root: Path, shard: int) -> Path:
    """Where the record of `shard` is."""
    return root / COMMITS / f"{shard:06d}.json"


def commit_shard(
    root: Path, plan: Plan, arrays: dict[str, zarr.Array], shard: int, content: dict[str, np.ndarray]
) -> Commit:
    """Write one shard of every array and publish its record.

    Args:
        arrays: the store's arrays, opened for writing.
        content: [shard_rows, ...] by array name, in the arrays' own types.

    Raises:
        StoreError: an activation is not finite, or a token id is negative.
        DamagedError: what was read back is not what was written.
        StorageError: the disk is full.
    """
    sequences = plan.shard(shard)
    _check(plan, shard, content)
    rows = slice(shard * plan.shard_rows, (shard + 1) * plan.shard_rows)
    files = {}
    with storage_errors(root):
        for name, values in content.items():
            arrays[name][rows] = values
            path = root / shard_file(name, shard)
            fsync_file(path)
            fsync_dir(path.parent)
            if not np.array_equal(_bits(arrays[name][rows]), _bits(values)):
                raise DamagedError(f"{path}: read back other bytes than were written.", path)
            files[shard_file(name, shard)] = (path.stat().st_size, sha256_file(path))
        done = Commit(shard, len(sequences), sum(s.n_tokens for s in sequences), files)
        write_json(
            commit_path(root, shard),
            {
                "shard": shard,
                "sequences": done.sequences,
                "tokens": done.tokens,
                "files": {name: list(mark) for name, mark in sorted(files.items())},
            },
        )
    return done


def read_commits(root: Path) -> dict[int, Commit]:
    """The committed shards by number.

    Raises:
        DamagedError: a record cannot be read.
    """
    out = {}
    for path in sorted((root / COMMITS).glob("*.json")):
        try:
            value = json.loads(path.read_bytes())
            files = {name: (size, digest) for name, (size, digest) in value["files"].items()}
            out[value["shard"]] = Commit(value["shard"], value["sequences"], value["tokens"], files)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path}: the commit record cannot be read.", path) from error
    return out


def broken_files(root: Path, commit: Commit) -> list[Path]:
    """Files of a committed shard that are missing, of another size, or of other bytes."""
    broken = []
    for name, (size, digest) in commit.files.items():
        path = root / name
        if not path.is_file() or path.stat().st_size != size or sha256_file(path) != digest:
            broken.append(path)
    return broken


def _check(plan: Plan, shard: int, content: dict[str, np.ndarray]) -> None:
    if (content["tokens"] < 0).any():
        raise StoreError(f"shard {shard}: a token id is negative.")
    for name, values in content.items():
        if not name.startswith("acts/"):
            continue
        if plan.dtype == "bfloat16":
            finite = (values & 0x7F80) != 0x7F80  # an exponent of all ones is Inf or NaN
        else:
            finite = np.isfinite(values)
        if not finite.all():
            row = int(np.flatnonzero(~finite.all(axis=1))[0]) + shard * plan.shard_rows
            owner = next(
                s.example_id
                for s in plan.shard(shard)
                if s.row_start <= row < s.row_start + s.n_tokens
            )
            raise StoreError(
                f"shard {shard}, {name}: an activation of example {owner} is not finite in "
                f"{plan.dtype}. Use dump.compute_dtype and dump.store_dtype bfloat16 or float32."
            )


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8)
