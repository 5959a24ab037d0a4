"""Every byte of a store against what was committed, with nothing but the store itself.

plan.json seals the metadata and the index, each commit record seals the files of its shard,
root.json seals the plan and the records, and canary.json, written last, names the root and says
that the store is finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from activation_store.layout.arrays import (
    CANARY_FIELDS,
    CANARY_FILE,
    PLAN_FILE,
    ROOT_FILE,
    array_names,
    shard_file,
)
from activation_store.layout.commit_records import Commit, commit_path, commit_records, read_commit
from activation_store.layout.file_marks import Fault, broken
from activation_store.layout.plan import PLAN_FIELDS
from activation_store.layout.root_record import read_root, root_digest
from activation_store.layout.sealed_json import read_sealed
from core.errors import DamagedError, StoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One file that is not as it was committed.

    Attributes:
        file: its path below the store.
        fault: what is wrong with it; `extra` belongs to no shard of the plan.
        shard: the shard whose file or record it is, or None.
        array: the array that it is a part of, such as `acts/L14`, or None.
    """

    file: str
    fault: Fault | Literal["extra"]
    shard: int | None = None
    array: str | None = None

    def __str__(self) -> str:
        where = "" if self.shard is None else f" (shard {self.shard}, {self.array or 'its record'})"
        return f"{self.file}{where}: {self.fault}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        files: files that are there.
        committed: shards with a good record.
        planned: shards of the plan; None where the plan cannot be read.
        finished: whether the dump came to its end.
        root: digest over the plan and all shards; None where there is none to be read.
        findings: what is wrong, in the order of the files' names.
    """

    files: int
    committed: int
    planned: int | None
    finished: bool
    root: str | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """As `store verify --json` shows it."""
        return asdict(self)


def verify(root: Path) -> Verdict:
    """Read all of the store at `root` and compare.

    A store whose dump is under way is judged by what is committed of it.

    Raises:
        StoreError: there is no store.
    """
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    if PLAN_FILE not in present and not commit_records(root):
        raise StoreError(f"store {root}: no activation store is here (no {PLAN_FILE}).")
    found: list[Finding] = []
    plan = _sealed(root / PLAN_FILE, PLAN_FIELDS)
    if plan is None:
        found.append(_finding(root / PLAN_FILE, root))
        plan = _misplaced_plan(root, present)
    commits = _commits(root, plan)
    if plan is not None:
        found += [Finding(file=n, fault=f) for n, f in broken(root, plan["files"]).items()]
    found += [
        _finding(path, root, shard=int(path.stem)) for path, c in commits.items() if c is None
    ]
    good = {commit.shard: commit for commit in commits.values() if commit is not None}
    for shard, commit in {**_rooted(root, plan), **good}.items():
        found += [
            Finding(file=name, fault=fault, shard=shard, array=name.split("/c/")[0])
            for name, fault in broken(root, commit.files).items()
        ]
    finished = CANARY_FILE in present
    if plan is not None and (finished or len(good) == plan["n_shards"]):
        found += _of_a_whole_store(root, plan, present)
    if finished or (plan is not None and len(good) == plan["n_shards"]):
        found += _of_the_end(root, plan, present)
    return Verdict(
        files=len(present),
        committed=len(good),
        planned=None if plan is None else plan["n_shards"],
        finished=finished,
        root=root_digest(root),
        findings=tuple(sorted(found, key=lambda finding: finding.file)),
    )


def _sealed(path: Path, fields: Iterable[str]) -> dict[str, Any] | None:
    try:
        return read_sealed(path, fields)
    except DamagedError:
        return None


def _misplaced_plan(root: Path, present: set[str]) -> dict[str, Any] | None:
    """The plan under the name of a file with which it was swapped: it judges the others still."""
    for name in sorted(present):
        with open(root / name, "rb") as file:
            opening = file.read(1)
        if opening == b"{" and (plan := _sealed(root / name, PLAN_FIELDS)):
            return plan
    return None


def _of_the_end(root: Path, plan: dict[str, Any] | None, present: set[str]) -> Iterator[Finding]:
    """The two files that a dump writes at its end."""
    canary = _sealed(root / CANARY_FILE, CANARY_FIELDS)
    if canary is None:
        yield _finding(root / CANARY_FILE, root)
    # stores of before root.json have none, and their canary.json names none
    named = None if canary is None else canary.get("root")
    if (ROOT_FILE in present or named) and not _root_fits(root, named, plan):
        yield _finding(root / ROOT_FILE, root)


def _root_fits(root: Path, named: str | None, plan: dict[str, Any] | None) -> bool:
    try:
        found, commits = read_root(root)
    except DamagedError:
        return False
    plans = {commit.plan for commit in commits.values()}
    own = plan is None or (plans == {plan["digest"]} and len(commits) == plan["n_shards"])
    return own and named in (None, found)


def _commits(root: Path, plan: dict[str, Any] | None) -> dict[Path, Commit | None]:
    """Every commit record that is there; None for one that is not as it was written."""
    out: dict[Path, Commit | None] = {}
    for path in commit_records(root):
        try:
            commit = read_commit(path)
        except DamagedError:
            out[path] = None
        else:
            out[path] = commit if plan is None or commit.plan == plan["digest"] else None
    return out


def _rooted(root: Path, plan: dict[str, Any] | None) -> dict[int, Commit]:
    """Commits as root.json has them, which judge the shards whose own records are lost."""
    try:
        commits = read_root(root)[1]
    except DamagedError:
        return {}
    return {n: c for n, c in commits.items() if plan is None or c.plan == plan["digest"]}


def _of_a_whole_store(root: Path, plan: dict[str, Any], present: set[str]) -> Iterator[Finding]:
    """What only a store that is finished must have, and must not have."""
    names = {PLAN_FILE, ROOT_FILE, CANARY_FILE, *plan["files"]}
    for shard in range(plan["n_shards"]):
        record = commit_path(root, shard)
        names.add(record.relative_to(root).as_posix())
        names |= {shard_file(name, shard) for name in array_names(tuple(plan["layers"]))}
        if not record.is_file():
            yield _finding(record, root, shard=shard)
    for name in present - names:
        yield Finding(file=name, fault="extra")


def _finding(path: Path, root: Path, *, shard: int | None = None) -> Finding:
    fault: Fault = "changed" if path.is_file() else "missing"
    return Finding(file=path.relative_to(root).as_posix(), fault=fault, shard=shard)
