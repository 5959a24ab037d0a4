"""The end of a fill: all commit records in one file, under one digest.

`root.json` holds what the records hold, so that a store of a thousand shards opens with one read;
its root digest covers every byte of the store's plan, index and shards, and `canary.json`, which is
written after it, names that digest. The records stay: each of the two mends the other.
"""

from __future__ import annotations

from pathlib import Path

from activation_store.layout.arrays import PLAN_FILE, ROOT_FILE
from activation_store.layout.commit_records import Commit, commit_of, read_commits, record_of
from activation_store.layout.plan import PLAN_FIELDS
from activation_store.layout.sealed_json import read_sealed, write_sealed
from core.canonical import digest
from core.errors import DamagedError, StoreError

_FIELDS = ("plan", "root", "shards")


def write_root(root: Path) -> str:
    """Gather the commit records of a store whose shards are all committed; its root digest.

    Raises:
        StoreError: a shard is not committed.
        DamagedError: the plan or a record is not as it was written.
        StorageError: the disk is full or read-only.
    """
    plan = read_sealed(root / PLAN_FILE, PLAN_FIELDS)
    commits = read_commits(root, plan["digest"])
    if len(commits) != plan["n_shards"]:
        raise StoreError(
            f"store {root}: {len(commits)} of {plan['n_shards']} shards are committed. "
            "Run the dump again: it goes on from there."
        )
    shards = [record_of(commits[shard]) for shard in sorted(commits)]
    found = digest({"plan": plan, "shards": shards})
    write_sealed(root / ROOT_FILE, {"plan": plan["digest"], "root": found, "shards": shards})
    return found


def read_root(root: Path) -> tuple[str, dict[int, Commit]]:
    """Root digest and commits by shard, as root.json has them.

    Raises:
        DamagedError: the file is missing or not as it was written.
    """
    value = read_sealed(root / ROOT_FILE, _FIELDS)
    commits = [commit_of(shard) for shard in value["shards"]]
    if any(commit.plan != value["plan"] for commit in commits):
        raise DamagedError(f"{root / ROOT_FILE}: it holds shards of several plans.", root)
    return value["root"], {commit.shard: commit for commit in commits}


def root_digest(root: Path) -> str | None:
    """The root digest of a finished store; None where root.json is missing or damaged."""
    try:
        return read_root(root)[0]
    except DamagedError:
        return None


def committed(root: Path, plan: str) -> dict[int, Commit]:
    """The committed shards of the plan with digest `plan`: from root.json where there is one.

    Raises:
        DamagedError: a file that says so is not as it was written.
    """
    if not (root / ROOT_FILE).is_file():
        return read_commits(root, plan)
    _, commits = read_root(root)
    return {shard: commit for shard, commit in commits.items() if commit.plan == plan}
