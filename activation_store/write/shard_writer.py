"""Writing shards in the background: each is written, synced, read back, then published.

Each chunk that is read back must have the checksum of the bytes in memory, over which the recorded
digest is computed. Committing a shard twice gives the same bytes and the same record.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from activation_store.layout.arrays import array_file, to_float32
from activation_store.layout.commit_records import ShardCommit, make_shard_folders, write_commits
from activation_store.layout.file_digests import FileDigest
from activation_store.layout.plan import Plan
from activation_store.layout.shard_image import ShardImage, chunk_packer, make_shard_image
from core.errors import DamagedError, StoreError
from core.files import fsync_dir, fsync_file, storage_errors

ShardContent = Mapping[str, np.ndarray[Any, Any]]
"""Activations [shard_rows, d_model] by array name, in the arrays' own type."""

IN_MEMORY = 4
"""Shards under way at once where they come faster than the disk takes them: two are digested,
written or read back, and two are synced."""
_PIECES_A_WRITE = 512
"""Pieces of a file that one call writes; systems allow 1,024."""


@dataclass(frozen=True, slots=True)
class _Stages:
    """How many commits may be where the CPU works (digesting, writing, reading back), and syncing.

    Commits that all were in one would wait for the disk together, and leave the CPU idle. Two may
    sync, as the disk would else idle from one to the next; of more, each would wait for the bytes
    of all, which a file system puts down before its journal.
    """

    work: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))
    sync: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(2))


class ShardWriter:
    """Commits shards of a store while its caller fills the next; a context that ends with the last.

    Args:
        root: the store's folder, with its plan written.
        plan: the plan.
        in_memory: most shards under way at once; the caller holds the one that it fills besides.
    """

    def __init__(self, root: Path, plan: Plan, *, in_memory: int = IN_MEMORY) -> None:
        make_shard_folders(root, plan)
        self._root, self._plan, self._most = root, plan, in_memory
        self._stages = _Stages()
        self._ready: deque[ShardCommit] = deque()
        self._stored: deque[Future[Future[None]]] = deque()
        self._published: deque[Future[None]] = deque()
        self._workers = ThreadPoolExecutor(in_memory)
        # a thread of its own, as a shard need not stay in memory while its record is published
        self._publisher = ThreadPoolExecutor(1)

    def submit(
        self, shard: int, content: ShardContent, reused: Mapping[str, FileDigest] | None = None
    ) -> None:
        """Begin to commit a shard; wait first while too many are under way.

        Args:
            shard: its number.
            content: what is to be written; it must not change any more.
            reused: the shard's files that are there and durable already, by path below the store.

        Raises: what an earlier commit met:
            StoreError: an activation is not finite.
            DamagedError: what was read back is not what was written.
            StorageError: the disk is full.
        """
        if len(self._stored) == self._most:
            self._published.append(self._stored.popleft().result())
        while self._published and self._published[0].done():
            self._published.popleft().result()
        self._stored.append(self._workers.submit(self._store, shard, content, reused or {}))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for every commit.

        Raises: as `submit`.
        """
        try:
            if error is None:
                for published in (*self._published, *(stored.result() for stored in self._stored)):
                    published.result()
        finally:
            self._workers.shutdown(cancel_futures=True)
            self._publisher.shutdown()

    def _store(
        self, shard: int, content: ShardContent, reused: Mapping[str, FileDigest]
    ) -> Future[None]:
        files = _write_verified(self._root, self._plan, shard, content, self._stages)
        own = self._plan.index.in_shard(shard)
        tokens = self._plan.shard_tokens(shard)
        commit = ShardCommit(shard, self._plan.digest, len(own), tokens, {**reused, **files})
        self._ready.append(commit)
        return self._publisher.submit(self._publish)

    def _publish(self) -> None:
        """Publish all commits that are ready, so that they share the syncs of folders."""
        if self._ready:
            _publish(self._root, [self._ready.popleft() for _ in range(len(self._ready))])


def _write_verified(
    root: Path, plan: Plan, shard: int, content: ShardContent, stages: _Stages
) -> dict[str, FileDigest]:
    """Write, sync and read back the files of one shard; return their digests.

    All files are written before the first is synced, so that the syncs that follow find little to
    do.
    """
    images = {}
    with storage_errors(root):
        with stages.work:
            for name, values in content.items():
                images[array_file(name, shard)] = _image(plan, shard, name, values)
            for file, image in images.items():
                _write_image(root / file, image)
        with stages.sync:
            for file in images:
                fsync_file(root / file)
        with stages.work:
            for file, image in images.items():
                _read_back(root / file, image)
    return {file: image.digest for file, image in images.items()}


def _publish(root: Path, commits: Sequence[ShardCommit]) -> None:
    """Make the names of shards' files durable, each folder once, then write their records."""
    with storage_errors(root):
        for folder in {(root / file).parent for commit in commits for file in commit.files}:
            fsync_dir(folder)
    write_commits(root, commits)


def _image(plan: Plan, shard: int, name: str, values: np.ndarray[Any, Any]) -> ShardImage:
    """Make the file of array `name` with the rows `values` of `shard`.

    Raises:
        StoreError: an activation is not finite.
    """

    def check(chunk: np.ndarray[Any, Any]) -> None:
        if not _all_finite(chunk, plan.dtype):
            raise _not_finite(plan, shard, name, values)

    return make_shard_image(values, plan.chunk_rows, chunk_packer(plan.dtype, plan.codec), check)


def _not_finite(plan: Plan, shard: int, name: str, values: np.ndarray[Any, Any]) -> StoreError:
    finite = np.isfinite(to_float32(values, plan.dtype))
    row = int(np.flatnonzero(~finite.all(axis=1))[0]) + shard * plan.shard_rows
    owner = next(
        s.example_id for s in plan.shard(shard) if s.row_start <= row < s.row_start + s.n_tokens
    )
    return StoreError(
        f"shard {shard}, {name}: an activation of example {owner} is not finite in "
        f"{plan.dtype}. Use dump.compute_dtype and dump.store_dtype bfloat16 or float32."
    )


def _all_finite(values: np.ndarray[Any, Any], dtype: str) -> bool:
    """Return whether stored values are all finite; the extremes tell, which takes no memory."""
    if dtype == "float32":
        return bool(np.isfinite(values.min()) and np.isfinite(values.max()))  # a NaN is both
    infinite = 0x7F80 if dtype == "bfloat16" else 0x7C00
    # an exponent of all ones is Inf or NaN, under either sign
    bits = values.view(np.uint16)
    return bool(bits.view(np.int16).max() < infinite and bits.max() < 0x8000 + infinite)


def _write_image(path: Path, image: ShardImage) -> None:
    """Write a file that is still to be synced.

    It is in place before that, as no record names it yet: so one sync serves the bytes and the
    name, and a reader that has the file of before mapped keeps it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    pieces = image.pieces()
    try:
        with open(aside, "wb", buffering=0) as out:
            for first in range(0, len(pieces), _PIECES_A_WRITE):
                some = pieces[first : first + _PIECES_A_WRITE]
                left = sum(map(len, some)) - os.writev(out.fileno(), some)
                if left:  # a disk that is nearly full, or more than a call takes
                    rest = memoryview(b"".join(some))[-left:]
                    while rest:
                        rest = rest[out.write(rest) :]
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _read_back(path: Path, image: ShardImage) -> None:
    """Read a file again.

    Raises:
        DamagedError: its bytes are not those of `image`.
    """
    with open(path, "rb") as file:
        same = os.stat(file.fileno()).st_size == image.digest.size and image.matches(
            np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        )
    if not same:
        raise DamagedError(f"{path}: read back other bytes than were written.", path)
