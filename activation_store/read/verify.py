"""Verification of every byte of a store against what was committed, with the store alone.

plan.json has the digests of metadata and index, each commit record those of its shard's files,
root.json covers the plan and the records, and canary.json, written last, names the root and says
that the store is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from activation_store.layout.arrays import (
    CANARY_FIELDS,
    CANARY_FILE,
    PLAN_FILE,
    ROOT_FILE,
    array_names,
    shard_file,
)
from activation_store.layout.checksummed_json import read_checksummed_json
from activation_store.layout.commit_records import (
    ShardCommit,
    commit_path,
    list_commit_paths,
    read_commit,
)
from activation_store.layout.file_digests import Damage, find_damage
from activation_store.layout.plan import read_plan
from activation_store.layout.root_record import read_root, root_digest
from core.errors import DamagedError, StoreError

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedFile:
    """One file that is not as it was committed.

    Attributes:
        file: its path below the store.
        fault: what is wrong with it; `extra` belongs to no shard of the plan, and of `unverified`
            the digest is lost with plan.json.
        shard: the shard whose file or record it is, or None.
        array: the array that it is a part of, such as `acts/L14`, or None.
    """

    file: str
    fault: Damage | Literal["extra", "unverified"]
    shard: int | None = None
    array: str | None = None

    def __str__(self) -> str:
        where = "" if self.shard is None else f" (shard {self.shard}, {self.array or 'its record'})"
        return f"{self.file}{where}: {self.fault}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationReport:
    """The state of a store as `verify` found it: files, shards, damage.

    Attributes:
        files: number of files that are there.
        committed: shards with a good record.
        planned: shards of the plan; None where the plan cannot be read.
        finished: whether the dump finished.
        root: digest over the plan and all shards; None where it cannot be read.
        damaged: files that are not as they were committed, by name.
    """

    files: int
    committed: int
    planned: int | None
    finished: bool
    root: str | None
    damaged: tuple[DamagedFile, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as `store verify --json` shows it."""
        return asdict(self)


def verify(root: Path) -> VerificationReport:
    """Read all of the store at `root` and compare.

    A store whose dump is under way is judged by what is committed of it.

    Raises:
        StoreError: there is no store, or it is of another version of the layout.
    """
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    if PLAN_FILE not in present and not list_commit_paths(root):
        raise StoreError(f"store {root}: no activation store is here (no {PLAN_FILE}).")
    found: list[DamagedFile] = []
    plan = _or_none(lambda: read_plan(root))
    if plan is None:
        found.append(_damaged(root / PLAN_FILE, root))
    commits = _commits(root, plan)
    if plan is not None:
        damage = find_damage(root, plan["files"])
        found += [DamagedFile(file=name, fault=fault) for name, fault in damage.items()]
    found += [
        _damaged(path, root, shard=int(path.stem)) for path, c in commits.items() if c is None
    ]
    good = {commit.shard: commit for commit in commits.values() if commit is not None}
    recorded = {**_commits_of_root(root, plan), **good}
    if plan is None:
        found += _unverified(root, present, recorded.values())
    for shard, commit in recorded.items():
        found += [
            DamagedFile(file=name, fault=fault, shard=shard, array=name.split("/c/")[0])
            for name, fault in find_damage(root, commit.files).items()
        ]
    finished = CANARY_FILE in present
    whole = plan is not None and len(good) == plan["n_shards"]
    if plan is not None and (finished or whole):
        found += _compare_names(root, plan, present)
    if finished or whole:
        found += _check_end(root, plan)
    return VerificationReport(
        files=len(present),
        committed=len(good),
        planned=None if plan is None else plan["n_shards"],
        finished=finished,
        root=root_digest(root),
        damaged=tuple(sorted(found, key=lambda damaged: damaged.file)),
    )


def _or_none(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except DamagedError:
        return None


def _check_end(root: Path, plan: dict[str, Any] | None) -> Iterator[DamagedFile]:
    """Check the two files that a dump writes at its end."""
    canary = _or_none(lambda: read_checksummed_json(root / CANARY_FILE, CANARY_FIELDS))
    if canary is None:
        yield _damaged(root / CANARY_FILE, root)
    if not _root_fits(root, None if canary is None else canary["root"], plan):
        yield _damaged(root / ROOT_FILE, root)


def _root_fits(root: Path, named: str | None, plan: dict[str, Any] | None) -> bool:
    found = _or_none(lambda: read_root(root))
    if found is None:
        return False
    value, commits = found
    plans = {commit.plan for commit in commits.values()}
    own = plan is None or (plans == {plan["digest"]} and len(commits) == plan["n_shards"])
    return own and named in (None, value)


def _unverified(
    root: Path, present: set[str], commits: Iterable[ShardCommit]
) -> Iterator[DamagedFile]:
    """List the files whose digests only the lost plan has."""
    known = {PLAN_FILE, ROOT_FILE, CANARY_FILE}
    known |= {path.relative_to(root).as_posix() for path in list_commit_paths(root)}
    known |= {name for commit in commits for name in commit.files}
    for name in present - known:
        yield DamagedFile(file=name, fault="unverified")


def _commits(root: Path, plan: dict[str, Any] | None) -> dict[Path, ShardCommit | None]:
    """Read every commit record that is there; None for one that is not as it was written."""
    out: dict[Path, ShardCommit | None] = {}
    for path in list_commit_paths(root):
        commit = _or_none(lambda path=path: read_commit(path))  # type: ignore[misc]
        out[path] = commit if commit and (plan is None or commit.plan == plan["digest"]) else None
    return out


def _commits_of_root(root: Path, plan: dict[str, Any] | None) -> dict[int, ShardCommit]:
    """Read commits from root.json, which judge the shards whose own records are lost."""
    _, commits = _or_none(lambda: read_root(root)) or ("", {})
    return {n: c for n, c in commits.items() if plan is None or c.plan == plan["digest"]}


def _compare_names(root: Path, plan: dict[str, Any], present: set[str]) -> Iterator[DamagedFile]:
    """Compare the names of files with those that a finished store has."""
    names = {PLAN_FILE, ROOT_FILE, CANARY_FILE, *plan["files"]}
    for shard in range(plan["n_shards"]):
        record = commit_path(root, shard)
        names.add(record.relative_to(root).as_posix())
        names |= {shard_file(name, shard) for name in array_names(tuple(plan["layers"]))}
        if not record.is_file():
            yield _damaged(record, root, shard=shard)
    for name in present - names:
        yield DamagedFile(file=name, fault="extra")


def _damaged(path: Path, root: Path, *, shard: int | None = None) -> DamagedFile:
    fault: Damage = "changed" if path.is_file() else "missing"
    return DamagedFile(file=path.relative_to(root).as_posix(), fault=fault, shard=shard)
