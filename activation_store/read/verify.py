"""Verification of every byte of a store against what was committed, with the store alone.

plan.json has the digests of metadata, index and tokens, each commit record those of its shard's
files, root.json covers the plan and the records, and canary.json, written last, names the root and
says that the store is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from activation_store.layout.arrays import (
    CANARY_FILE,
    PLAN_FILE,
    ROOT_FILE,
    array_file,
    array_of,
    layer_array,
)
from activation_store.layout.commit_records import (
    ShardCommit,
    commit_path,
    list_commit_paths,
    read_commit,
)
from activation_store.layout.file_digests import Damage, find_damage
from activation_store.layout.plan_files import read_plan
from activation_store.layout.root_record import read_canary, read_root
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
    plan, ended = _or_none(read_plan, root), _or_none(read_root, root)
    good: dict[int, ShardCommit] = {}
    for path in list_commit_paths(root):
        commit = _or_none(read_commit, path)
        if commit is not None and _is_of(plan, commit):
            good[commit.shard] = commit
        else:
            found.append(_damaged(path, root, shard=int(path.stem)))
    # root.json judges the shards whose own records are lost
    recorded = {n: c for n, c in ended[1].items() if _is_of(plan, c)} if ended else {}
    recorded |= good
    if plan is None:
        found.append(_damaged(root / PLAN_FILE, root))
        found += _unverified(root, present, recorded.values())
    else:
        damage = find_damage(root, plan["files"])
        found += [
            DamagedFile(file=name, fault=fault, array=array_of(name))
            for name, fault in damage.items()
        ]
    for shard, commit in recorded.items():
        found += [
            DamagedFile(file=name, fault=fault, shard=shard, array=array_of(name))
            for name, fault in find_damage(root, commit.files).items()
        ]
    finished = CANARY_FILE in present
    whole = plan is not None and len(good) == plan["n_shards"]
    if plan is not None and (finished or whole):
        found += _compare_names(root, plan, present)
    if finished or whole:
        found += _check_end(root, plan, ended)
    return VerificationReport(
        files=len(present),
        committed=len(good),
        planned=None if plan is None else plan["n_shards"],
        finished=finished,
        root=ended[0] if ended else None,
        damaged=tuple(sorted(found, key=lambda damaged: damaged.file)),
    )


def _or_none(read: Callable[[Path], _T], path: Path) -> _T | None:
    try:
        return read(path)
    except DamagedError:
        return None


def _is_of(plan: dict[str, Any] | None, commit: ShardCommit) -> bool:
    """Return whether a commit is of this plan; of any where the plan cannot be read."""
    return plan is None or commit.plan == plan["digest"]


def _check_end(
    root: Path, plan: dict[str, Any] | None, ended: tuple[str, dict[int, ShardCommit]] | None
) -> Iterator[DamagedFile]:
    """Check the two files that a dump writes at its end.

    Args:
        root: the store.
        plan: its plan; None where it cannot be read.
        ended: what root.json says; None where it cannot be read.
    """
    canary = _or_none(read_canary, root)
    if canary is None:
        yield _damaged(root / CANARY_FILE, root)
    if (
        ended is None
        or (canary is not None and canary["root"] != ended[0])
        or not all(_is_of(plan, commit) for commit in ended[1].values())
        or (plan is not None and len(ended[1]) != plan["n_shards"])
    ):
        yield _damaged(root / ROOT_FILE, root)


def _unverified(
    root: Path, present: set[str], commits: Iterable[ShardCommit]
) -> Iterator[DamagedFile]:
    """List the files whose digests only the lost plan has."""
    known = {PLAN_FILE, ROOT_FILE, CANARY_FILE}
    known |= {path.relative_to(root).as_posix() for path in list_commit_paths(root)}
    known |= {name for commit in commits for name in commit.files}
    for name in present - known:
        yield DamagedFile(file=name, fault="unverified")


def _compare_names(root: Path, plan: dict[str, Any], present: set[str]) -> Iterator[DamagedFile]:
    """Compare the names of files with those that a finished store has."""
    names = {PLAN_FILE, ROOT_FILE, CANARY_FILE, *plan["files"]}
    for shard in range(plan["n_shards"]):
        record = commit_path(root, shard)
        names.add(record.relative_to(root).as_posix())
        names |= {array_file(layer_array(layer), shard) for layer in plan["layers"]}
        if not record.is_file():
            yield _damaged(record, root, shard=shard)
    for name in present - names:
        yield DamagedFile(file=name, fault="extra")


def _damaged(path: Path, root: Path, *, shard: int | None = None) -> DamagedFile:
    fault: Damage = "changed" if path.is_file() else "missing"
    return DamagedFile(file=path.relative_to(root).as_posix(), fault=fault, shard=shard)
