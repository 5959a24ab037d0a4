"""The end of a dump: all commit records in one file, under one root digest.

`root.json` holds what the records hold, so that a store of a thousand shards opens with one read;
its root digest covers every byte of the store's plan, index and shards, and `canary.json`, which is
written after it, names that digest. The records stay: either can be restored from the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from activation_store.layout.arrays import CANARY_FILE, PLAN_FILE, ROOT_FILE
from activation_store.layout.checksummed_json import read_checksummed_json, write_checksummed_json
from activation_store.layout.commit_records import ShardCommit, read_commits
from activation_store.layout.plan_files import PLAN_FIELDS
from core.documents.canonical import digest
from core.errors import DamagedError, StoreError

_FIELDS = ("plan", "root", "shards")
_CANARY_FIELDS = ("rows", "tokens", "max_relative", "tolerance", "root")


def write_root(root: Path) -> str:
    """Gather the commit records of a store whose shards are all committed; return its root digest.

    Raises:
        StoreError: a shard is not committed.
        DamagedError: the plan or a record is not as it was written.
        StorageError: the disk is full or read-only.
    """
    plan = read_checksummed_json(root / PLAN_FILE, PLAN_FIELDS)
    commits = read_commits(root, plan["digest"])
    if len(commits) != plan["n_shards"]:
        raise StoreError(
            f"store {root}: only {len(commits)} of {plan['n_shards']} shards are committed. "
            "Run the dump again: it resumes."
        )
    shards = [commits[shard].to_json() for shard in sorted(commits)]
    found = digest({"plan": plan, "shards": shards})
    record = {"plan": plan["digest"], "root": found, "shards": shards}
    write_checksummed_json(root / ROOT_FILE, record)
    return found


def read_root(root: Path) -> tuple[str, dict[int, ShardCommit]]:
    """Read root.json: the root digest, and the commits by shard.

    Raises:
        DamagedError: the file is missing or not as it was written.
    """
    value = read_checksummed_json(root / ROOT_FILE, _FIELDS)
    commits = [ShardCommit.from_json(shard) for shard in value["shards"]]
    if any(commit.plan != value["plan"] for commit in commits):
        raise DamagedError(f"{root / ROOT_FILE}: it holds shards of several plans.", root)
    return str(value["root"]), {commit.shard: commit for commit in commits}


def root_digest(root: Path) -> str | None:
    """Return the root digest of a finished store; None where root.json is missing or damaged."""
    try:
        return read_root(root)[0]
    except DamagedError:
        return None


def read_canary(root: Path) -> dict[str, Any]:
    """Read canary.json: the result of the canary, and the root digest of the store it is of.

    Raises:
        DamagedError: the file is missing or not as it was written.
    """
    return read_checksummed_json(root / CANARY_FILE, _CANARY_FIELDS)


def finished_root(folder: Path) -> str:
    """Return the root digest of a finished store, by which it is known.

    Raises:
        StoreError: there is no store, or its dump has not finished.
        DamagedError: its records are not as they were written.
    """
    if not (folder / PLAN_FILE).is_file():
        raise StoreError(f"store {folder}: no activation store is here (no {PLAN_FILE}).")
    if not (folder / CANARY_FILE).is_file():
        raise StoreError(f"store {folder}: its dump has not finished. Finish it first.")
    root, _ = read_root(folder)
    if read_canary(folder)["root"] != root:
        raise DamagedError(f"{folder / CANARY_FILE}: it names another root digest.", folder)
    return root


def read_committed(root: Path, plan: str) -> dict[int, ShardCommit]:
    """Read the committed shards of the plan with digest `plan`, from root.json where it exists.

    Raises:
        DamagedError: a record is not as it was written.
    """
    if not (root / ROOT_FILE).is_file():
        return read_commits(root, plan)
    _, commits = read_root(root)
    return {shard: commit for shard, commit in commits.items() if commit.plan == plan}
