"""The commit log: a shard exists for readers when its record does, and not before.

A shard is filled in memory, written whole, synced and read back; then its record, with the digest
of each of its files, is renamed into place. What is read back must have, chunk by chunk, the
checksum of the bytes in memory, of which the digest is.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.arrays import COMMITS, array_names, shard_file, to_float32
from activation_store.layout.file_marks import Mark
from activation_store.layout.plan import Plan
from activation_store.layout.sealed_json import read_sealed, sealed
from activation_store.layout.shard_image import Image, packer, shard_image
from core.errors import DamagedError, StoreError
from core.files import fsync_dir, fsync_file, storage_errors, write_files

AT_ONCE = 4
"""Shards in memory at once where they come faster than the disk takes them: one is digested or
read back, one is written, and two are synced."""
_AT_A_TIME = 512
"""Pieces of a file that one call writes; systems allow 1,024."""
_FIELDS = ("shard", "plan", "sequences", "tokens", "files")


@dataclass(frozen=True, slots=True)
class Commit:
    """The record of a whole shard.

    Attributes:
        plan: digest of the plan that the shard belongs to.
        files: mark of each of its files, by path below the store.
    """

    shard: int
    plan: str
    sequences: int
    tokens: int
    files: dict[str, Mark]


def commit_path(root: Path, shard: int) -> Path:
    """Where the record of `shard` is."""
    return root / COMMITS / f"{shard:06d}.json"


@dataclass(frozen=True, slots=True)
class _Turns:
    """Which of several commits may digest (before writing, and what is read back), write and sync.

    Commits that do the same at once wait for the disk at once too, and leave the CPU idle. Two may
    sync, as the disk would else idle from one to the next; of more, each would wait for the bytes
    of all, which a file system puts down before its journal.
    """

    digest: threading.Lock = field(default_factory=threading.Lock)
    write: threading.Lock = field(default_factory=threading.Lock)
    sync: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))


def commit_shard(
    root: Path,
    plan: Plan,
    shard: int,
    content: Mapping[str, np.ndarray],
    linked: Mapping[str, Mark] = {},
) -> Commit:
    """Write one shard of every array and publish its record.

    Args:
        content: [shard_rows, ...] by array name, in the arrays' own types.
        linked: marks of the shard's files that are there and durable already, by path below `root`.

    Raises:
        StoreError: an activation is not finite, or a token id is negative.
        DamagedError: what was read back is not what was written.
        StorageError: the disk is full.
    """
    commit = _stored(root, plan, shard, content, linked, _Turns())
    _publish(root, [commit])
    return commit


def commit_all(
    root: Path, plan: Plan, shards: Iterable[tuple[int, Mapping[str, np.ndarray]]]
) -> None:
    """Commit shards as they come, `AT_ONCE` of them in memory, so that the disk always has work.

    Records are published by a thread of its own, as a shard need not stay in memory for that.

    Args:
        shards: number and content of each.

    Raises: as `commit_shard`.
    """
    make_folders(root, plan)
    turns = _Turns()
    ready: deque[Commit] = deque()

    def publish() -> None:
        _publish(root, [ready.popleft() for _ in range(len(ready))])

    with ThreadPoolExecutor(1) as publishing, ThreadPoolExecutor(AT_ONCE) as pool:

        def store(shard: int, content: Mapping[str, np.ndarray]) -> Future[None]:
            ready.append(_stored(root, plan, shard, content, {}, turns))
            return publishing.submit(publish)

        in_memory: deque[Future[Future[None]]] = deque()
        published: deque[Future[None]] = deque()
        for shard, content in shards:
            if len(in_memory) == AT_ONCE:
                published.append(in_memory.popleft().result())
            while published and published[0].done():
                published.popleft().result()
            in_memory.append(pool.submit(store, shard, content))
        for record in (*published, *(stored.result() for stored in in_memory)):
            record.result()


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


def write_commits(root: Path, commits: Iterable[Commit]) -> None:
    """Publish the records of shards whose files and folders are durable, each whole or not at all.

    Raises:
        StorageError: the disk is full or read-only.
    """
    records = {commit_path(root, c.shard): sealed(record_of(c)) for c in commits}
    write_files(records)


def record_of(commit: Commit) -> dict[str, Any]:
    """A commit as plain JSON types."""
    files = {name: list(mark) for name, mark in sorted(commit.files.items())}
    return {**asdict(commit), "files": files}


def commit_of(record: dict[str, Any]) -> Commit:
    """The commit that `record_of` wrote down."""
    files = {name: (size, digest) for name, (size, digest) in record["files"].items()}
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


def _stored(
    root: Path,
    plan: Plan,
    shard: int,
    content: Mapping[str, np.ndarray],
    linked: Mapping[str, Mark],
    turns: _Turns,
) -> Commit:
    """Write, sync and read back one shard; its record, which is still to be published.

    All files are written before the first is synced, so that the syncs that follow find little to
    do.
    """
    sequences = plan.shard(shard)
    images = {}
    with storage_errors(root):
        with turns.digest:
            for name, values in content.items():
                images[shard_file(name, shard)] = _image(plan, shard, name, values)
        with turns.write:
            for file, image in images.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                _put(root / file, image)
        with turns.sync:
            for file in images:
                fsync_file(root / file)
        with turns.digest:
            for file, image in images.items():
                _read_back(root / file, image)
    marks = {file: image.mark for file, image in images.items()}
    tokens = sum(s.n_tokens for s in sequences)
    return Commit(shard, plan.digest, len(sequences), tokens, {**linked, **marks})


def _publish(root: Path, commits: Sequence[Commit]) -> None:
    """Make the names of shards' files durable, each folder once, then write their records."""
    folders: dict[Path, None] = {}
    for file in (file for commit in commits for file in commit.files):
        folder = (root / file).parent
        folders[folder] = None
        if folder.name != "c":  # a folder of the shard's own, and new
            folders[folder.parent] = None
    with storage_errors(root):
        for folder in folders:
            fsync_dir(folder)
    write_commits(root, commits)


def _image(plan: Plan, shard: int, name: str, values: np.ndarray) -> Image:
    """The file of array `name` with the rows `values` of `shard`.

    Raises:
        StoreError: an activation is not finite, or a token id is negative.
    """
    if not name.startswith("acts/"):
        if name == "tokens" and (values < 0).any():
            raise StoreError(f"shard {shard}: a token id is negative.")
        return shard_image(values, plan.chunk_rows)

    def check(chunk: np.ndarray) -> None:
        if not _finite(chunk, plan.dtype):
            raise _not_finite(plan, shard, name, values)

    return shard_image(values, plan.chunk_rows, packer(plan.dtype, plan.codec), check)


def _not_finite(plan: Plan, shard: int, name: str, values: np.ndarray) -> StoreError:
    finite = np.isfinite(to_float32(values, plan.dtype))
    row = int(np.flatnonzero(~finite.all(axis=1))[0]) + shard * plan.shard_rows
    owner = next(
        s.example_id for s in plan.shard(shard) if s.row_start <= row < s.row_start + s.n_tokens
    )
    return StoreError(
        f"shard {shard}, {name}: an activation of example {owner} is not finite in "
        f"{plan.dtype}. Use dump.compute_dtype and dump.store_dtype bfloat16 or float32."
    )


def _finite(values: np.ndarray, dtype: str) -> bool:
    """Whether stored values are all finite; judged by the extremes, which takes no memory."""
    if dtype == "float32":
        return bool(np.isfinite(values.min()) and np.isfinite(values.max()))  # a NaN is both
    infinite = 0x7F80 if dtype == "bfloat16" else 0x7C00
    # an exponent of all ones is Inf or NaN, under either sign
    bits = values.view(np.uint16)
    return bool(bits.view(np.int16).max() < infinite and bits.max() < 0x8000 + infinite)


def _put(path: Path, image: Image) -> None:
    """Write a file that is still to be synced. It is in place before that, as no record names it
    yet: so one sync serves the bytes and the name, and who has the file of before mapped keeps it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    pieces = image.pieces()
    try:
        with open(aside, "wb", buffering=0) as out:
            for first in range(0, len(pieces), _AT_A_TIME):
                some = pieces[first : first + _AT_A_TIME]
                left = sum(map(len, some)) - os.writev(out.fileno(), some)
                if left:  # a disk that is nearly full, or more than a call takes
                    rest = memoryview(b"".join(some))[-left:]
                    while rest:
                        rest = rest[out.write(rest) :]
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _read_back(path: Path, image: Image) -> None:
    """Read a file again.

    Raises:
        DamagedError: its bytes are not those of `image`.
    """
    with open(path, "rb") as file:
        same = os.stat(file.fileno()).st_size == image.mark[0] and image.is_in(
            np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        )
    if not same:
        raise DamagedError(f"{path}: read back other bytes than were written.", path)
