"""The commit log: a shard exists for readers when its record does, and not before.

A shard is filled in memory, written whole, synced, read back and compared; then its record, with
the digest of each of its files, is renamed into place. The digests are of the bytes in memory, and
what is read back must be those.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from activation_store.layout import COMMITS, array_names, shard_file, to_float32
from activation_store.plan import Plan
from activation_store.seal import read_sealed, write_sealed
from activation_store.shard_image import Image, packer, shard_image, size_of
from generators.errors import DamagedError, StoreError
from generators.files import fsync_dir, fsync_file, sha256_file, storage_errors

Fault = Literal["missing", "truncated", "changed"]
Mark = tuple[int, str]
"""Size in bytes and sha256 of a file."""
AT_ONCE = 3
"""Commits under way at once where shards come faster than the disk takes them."""
_AT_A_TIME = 512
"""Pieces of a file that one call writes; systems allow 1,024."""
_FIELDS = ("shard", "plan", "sequences", "tokens", "files")


@dataclass(frozen=True, slots=True)
class Commit:
    """The record of a whole shard.

    Attributes:
        plan: digest of the plan that the shard belongs to.
        files: (bytes, sha256) of each of its files, by path below the store.
    """

    shard: int
    plan: str
    sequences: int
    tokens: int
    files: dict[str, Mark]


def commit_path(root: Path, shard: int) -> Path:
    """Where the record of `shard` is."""
    return root / COMMITS / f"{shard:06d}.json"


def commit_shard(
    root: Path,
    plan: Plan,
    shard: int,
    content: Mapping[str, np.ndarray],
    linked: Mapping[str, Mark] = {},
) -> Commit:
    """Write one shard of every array and publish its record.

    They are hashed by a thread of its own while they are written, synced and read back.

    Args:
        content: [shard_rows, ...] by array name, in the arrays' own types.
        linked: marks of the shard's files that are there and durable already, by path below `root`.

    Raises:
        StoreError: an activation is not finite, or a token id is negative.
        DamagedError: what was read back is not what was written.
        StorageError: the disk is full.
    """
    sequences = plan.shard(shard)
    _check(plan, shard, content)
    images = {}
    for name, values in content.items():
        pack = packer(plan.dtype, plan.codec) if name.startswith("acts/") else None
        images[shard_file(name, shard)] = shard_image(values, plan.chunk_rows, pack)
    with storage_errors(root), ThreadPoolExecutor(1) as pool:
        hashing = {file: pool.submit(_sha256, image) for file, image in images.items()}
        _write(root, images)
    marks = {file: (size_of(images[file]), sha256.result()) for file, sha256 in hashing.items()}
    tokens = sum(s.n_tokens for s in sequences)
    commit = Commit(shard, plan.digest, len(sequences), tokens, {**linked, **marks})
    write_commit(root, commit)
    return commit


def commit_all(
    root: Path, plan: Plan, shards: Iterable[tuple[int, Mapping[str, np.ndarray]]]
) -> None:
    """Commit shards as they come, `AT_ONCE` of them under way, so that the disk always has work.

    Args:
        shards: number and content of each.

    Raises: as `commit_shard`.
    """
    make_folders(root, plan)
    under_way: deque[Future[Commit]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for shard, content in shards:
            if len(under_way) == AT_ONCE:
                under_way.popleft().result()
            under_way.append(pool.submit(commit_shard, root, plan, shard, content))
        for commit in under_way:
            commit.result()


def make_folders(root: Path, plan: Plan) -> None:
    """The folders that shards and records go to, made durable once, so that no shard has to.

    Raises:
        StorageError: the disk is full or read-only.
    """
    folders = shard_folders(root, plan)
    with storage_errors(root):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in {root, *folders, *(folder.parent for folder in folders), root / "acts"}:
            fsync_dir(folder)


def shard_folders(root: Path, plan: Plan) -> list[Path]:
    """The folders that shards and records go to."""
    return [root / COMMITS, *(root / name / "c" for name in array_names(plan.layers))]


def write_commit(root: Path, commit: Commit) -> None:
    """Publish the record of a shard whose files are durable.

    Raises:
        StorageError: the disk is full or read-only.
    """
    write_sealed(commit_path(root, commit.shard), record_of(commit))


def record_of(commit: Commit) -> dict[str, Any]:
    """A commit as plain JSON types."""
    files = {name: list(mark) for name, mark in sorted(commit.files.items())}
    return {**asdict(commit), "files": files}


def commit_of(record: dict[str, Any]) -> Commit:
    """The commit that `record_of` wrote down."""
    files = {name: (size, sha256) for name, (size, sha256) in record["files"].items()}
    return Commit(**{**record, "files": files})


def commit_records(root: Path) -> list[Path]:
    """The commit records that are there, whole or not, in shard order."""
    return sorted(path for path in (root / COMMITS).glob("*.json") if path.stem.isdigit())


def read_commit(path: Path) -> Commit:
    """One commit record.

    Raises:
        DamagedError: it is not as it was written, or is another shard's.
    """
    value = read_sealed(path, _FIELDS)
    if path.name != commit_path(path, value["shard"]).name:
        raise DamagedError(f"{path}: it is the record of shard {value['shard']}.", path)
    return commit_of(value)


def read_commits(root: Path, plan: str) -> dict[int, Commit]:
    """The committed shards of the plan with digest `plan`, by number.

    Raises:
        DamagedError: a record is not as it was written.
    """
    found = [read_commit(path) for path in commit_records(root)]
    return {commit.shard: commit for commit in found if commit.plan == plan}


def broken(root: Path, files: Mapping[str, Mark]) -> dict[str, Fault]:
    """What is wrong with files of known (bytes, sha256), by path below `root`; all are read."""
    faults = {name: _fault(root / name, size, sha256) for name, (size, sha256) in files.items()}
    return {name: fault for name, fault in faults.items() if fault is not None}


def _fault(path: Path, size: int, sha256: str) -> Fault | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size < size:
        return "truncated"
    return None if sha256_file(path) == sha256 else "changed"


def _check(plan: Plan, shard: int, content: Mapping[str, np.ndarray]) -> None:
    if (content["tokens"] < 0).any():
        raise StoreError(f"shard {shard}: a token id is negative.")
    for name, values in content.items():
        if not name.startswith("acts/"):
            continue
        if not _finite(values, plan.dtype):
            finite = np.isfinite(to_float32(values, plan.dtype))
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


def _finite(values: np.ndarray, dtype: str) -> bool:
    """Whether stored values are all finite; judged by the extremes, which takes no memory."""
    if dtype == "bfloat16":  # an exponent of all ones is Inf or NaN, under either sign
        return bool(values.view(np.int16).max() < 0x7F80 and values.max() < 0xFF80)
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))  # a NaN is both


def _write(root: Path, images: Mapping[str, Image]) -> None:
    """Write files by path below `root` durably, and read them back.

    All are written before the first is synced, so that the syncs that follow find little to do.
    """
    folders: dict[Path, None] = {}
    for file, image in images.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, image)
        folders[path.parent] = None
        if path.parent.name != "c":  # a folder of the shard's own, and new
            folders[path.parent.parent] = None
    for file in images:
        fsync_file(root / file)
    for folder in folders:
        fsync_dir(folder)
    for file, image in images.items():
        if not _holds(root / file, image):
            raise DamagedError(
                f"{root / file}: read back other bytes than were written.", root / file
            )


def _put(path: Path, image: Image) -> None:
    """Write a file that is still to be synced. It is in place before that, as no record names it
    yet: so one sync serves the bytes and the name, and who has the file of before mapped keeps it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(aside, "wb", buffering=0) as out:
            for first in range(0, len(image), _AT_A_TIME):
                pieces = image[first : first + _AT_A_TIME]
                left = size_of(pieces) - os.writev(out.fileno(), [piece.data for piece in pieces])
                if left:  # a disk that is nearly full, or more than a call takes
                    rest = np.concatenate(pieces)[-left:].data
                    while rest:
                        rest = rest[out.write(rest) :]
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _holds(path: Path, image: Image) -> bool:
    """Whether a file is these pieces, byte by byte."""
    if path.stat().st_size != size_of(image):
        return False
    found, at = np.asarray(np.memmap(path, mode="r")), 0
    for piece in image:  # one at a time, so that what a comparison needs stays in the CPU's cache
        wide = np.uint8 if len(piece) % 4 else np.uint32
        if not np.array_equal(found[at : at + len(piece)].view(wide), piece.view(wide)):
            return False
        at += len(piece)
    return True


def _sha256(image: Image) -> str:
    digest = hashlib.sha256()
    for piece in image:
        digest.update(piece.data)
    return digest.hexdigest()
