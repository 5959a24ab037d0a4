"""Commit records: a shard exists for readers when its record does, and not before.

A record holds the size and digest of each of the shard's files. It is renamed into place after the
files are written, synced and read back (activation_store/write/shard_writer.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activation_store.layout.arrays import COMMITS, layer_array
from activation_store.layout.checksummed_json import checksummed_json, read_checksummed_json
from activation_store.layout.file_digests import FileDigest
from activation_store.layout.plan import Plan
from core.errors import DamagedError, StorageError
from core.files import fsync_dir, storage_errors, write_files

_FIELDS = ("shard", "plan", "sequences", "tokens", "files")


@dataclass(frozen=True, slots=True)
class ShardCommit:
    """The record of a whole shard.

    Attributes:
        plan: digest of the plan that the shard belongs to.
        files: size and digest of each of its files, by path below the store.
    """

    shard: int
    plan: str
    sequences: int
    tokens: int
    files: dict[str, FileDigest]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        files = {name: list(known) for name, known in sorted(self.files.items())}
        return {**asdict(self), "files": files}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ShardCommit:
        """Return the commit that `to_json` wrote down."""
        files = {name: FileDigest(*known) for name, known in record["files"].items()}
        return cls(**{**record, "files": files})


def commit_path(root: Path, shard: int) -> Path:
    """Return the path of the record of `shard`."""
    return root / COMMITS / f"{shard:06d}.json"


def make_shard_folders(root: Path, plan: Plan) -> None:
    """Make the folders of shards and records durable, once, so that no shard has to.

    Raises:
        StorageError: the disk is full or read-only.
    """
    folders = shard_folders(root, plan)
    with storage_errors(root):
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for folder in {root, *folders, *(folder.parent for folder in folders)}:
            fsync_dir(folder)


def shard_folders(root: Path, plan: Plan) -> list[Path]:
    """Return the folders of shards and records."""
    return [root / COMMITS, *(root / layer_array(k) for k in plan.layers)]


def write_commits(root: Path, commits: Iterable[ShardCommit]) -> None:
    """Publish the records of shards whose files and folders are durable, each whole or not at all.

    Raises:
        StorageError: the disk is full or read-only; records that could be written are there.
    """
    records = {commit_path(root, c.shard): checksummed_json(c.to_json()) for c in commits}
    try:
        write_files(records)
    except StorageError:
        failed: list[StorageError] = []
        for path, data in records.items():  # one that does not fit loses no other
            try:
                write_files({path: data})
            except StorageError as error:
                failed.append(error)
        if failed:
            raise failed[0] from None


def list_commit_paths(root: Path) -> list[Path]:
    """Return the paths of the commit records that are there, damaged or not, in shard order."""
    return sorted(path for path in (root / COMMITS).glob("*.json") if path.stem.isdigit())


def read_commit(path: Path) -> ShardCommit:
    """Read one commit record.

    Raises:
        DamagedError: it is not as it was written, or is another shard's.
    """
    value = read_checksummed_json(path, _FIELDS)
    if path.name != commit_path(path, value["shard"]).name:
        raise DamagedError(f"{path}: it is the record of shard {value['shard']}.", path)
    return ShardCommit.from_json(value)


def read_commits(root: Path, plan: str) -> dict[int, ShardCommit]:
    """Read the committed shards of the plan with digest `plan`, by number.

    Raises:
        DamagedError: a record is not as it was written.
    """
    found = [read_commit(path) for path in list_commit_paths(root)]
    return {commit.shard: commit for commit in found if commit.plan == plan}
