"""Garbage collection: removing the artifacts that no name holds."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import DamagedError, StorageError
from core.files import folder_bytes, remove_leftovers, storage_errors
from pipelines.artifacts.artifact import RECORD, Artifact, Partial
from pipelines.artifacts.cache_key import SHORT
from pipelines.artifacts.locks import exclusive_or_none
from pipelines.artifacts.refs import Name, Refs
from pipelines.artifacts.root import FOLDER, MARK, ArtifactRoot

_REMOVED = ".removed"
_LEFT = re.compile(rf"\.{FOLDER.pattern}{re.escape(_REMOVED)}")
"""Folder that a killed collection was removing."""
_ASIDE = re.compile(r"\.([^/]+\.json)\.[0-9a-f]{8}-\d+\.\d+\.tmp")
"""What a killed write of the root's mark or of a name leaves behind: its group is the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """A folder of the root that no name holds."""

    short: str
    path: Path
    size: int
    """Bytes on disk."""


def find_garbage(
    root: ArtifactRoot, *, partials: bool = False, without: Collection[Name] = ()
) -> list[Garbage]:
    """Return the artifacts that no name holds, directly or as an input of a held one.

    Only folders that a run made are listed: they have an artifact's name, form and identity, and
    lie in the root itself and not behind a link.

    Args:
        root: the artifact root.
        partials: list unfinished artifacts too. Else they are kept, and so are their inputs.
        without: names that are taken for forgotten already.

    Raises:
        StorageError: the folder is not marked as an artifact root.
        DamagedError: what a name holds cannot be read.
    """
    if not root.is_marked:
        raise StorageError(
            f"{root.path}: is not an artifact root (no file {MARK}). Check --root; "
            "`latentqa run` creates that file."
        )
    refs = Refs(root)
    if broken := refs.broken_files():
        raise DamagedError(
            f"{broken[0]}: cannot be read, so it is unknown which artifacts it names, and "
            "nothing is removed. Make it readable, remove it, or run the experiment again.",
            broken[0],
        )
    if closed := root.closed():
        raise StorageError(
            f"{closed[0]}: may not be read, so it is unknown what it is made from, and nothing is "
            "removed. Change its permissions, or have its owner collect."
        )
    artifacts, unfinished = root.artifacts(), root.partials()
    names = [name for name in refs.names() if name not in without]
    held = _held_keys(refs, names, artifacts, [] if partials else unfinished)
    garbage: list[Artifact | Partial] = [a for a in artifacts if a.key not in held]
    if partials:
        # one that a name holds was found damaged, and the next run completes it
        named = {key[:SHORT] for key in held}
        garbage.extend(p for p in unfinished if p.name not in named)
    garbage = [g for g in garbage if not (g.path.is_symlink() or g.path.parent.is_symlink())]
    return [Garbage(short=g.short, path=g.path, size=folder_bytes(g.path)) for g in garbage]


def collect_garbage(
    root: ArtifactRoot, *, partials: bool = False, without: Collection[Name] = ()
) -> list[Garbage]:
    """Remove the artifacts that no name holds, and return them.

    Args:
        root: the artifact root.
        partials: as for `find_garbage`.
        without: names that are forgotten first.

    Raises:
        StorageError: a run or a command uses this root now, or the folder is not marked as an
            artifact root.
        DamagedError: what a name holds cannot be read; nothing is removed.
    """
    if not root.is_marked:
        return find_garbage(root)  # which refuses, before a lock file is made
    with exclusive_or_none(root.in_use) as alone:
        if not alone:
            raise StorageError(
                f"{root.path}: a run is in progress here, or another command reads artifacts, and "
                "gc may remove what they need. Wait for them to end, then run gc again."
            )
        garbage = find_garbage(root, partials=partials, without=without)
        for name in without:
            Refs(root).untag(str(name))
        for left in _left_behind(root.path, _LEFT):
            shutil.rmtree(left)
        for place in (root.path, *_own_folders(Refs(root).folder)):
            for left in place.iterdir():
                if found := _ASIDE.fullmatch(left.name):
                    remove_leftovers(place / found[1])
        for item in garbage:
            with storage_errors(item.path):
                # renamed first: wherever the removal is interrupted, it is no artifact any more
                aside = item.path.with_name(f".{item.path.name}{_REMOVED}")
                os.rename(item.path, aside)
                shutil.rmtree(aside)
    return garbage


def _own_folders(path: Path) -> list[Path]:
    """Return the folders in `path` that are no links to others."""
    try:
        return [child for child in path.iterdir() if child.is_dir() and not child.is_symlink()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # the last: somebody else's
        return []


def _left_behind(root: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Yield the folders so named, one level below `root`."""
    for place in _own_folders(root):
        yield from (child for child in _own_folders(place) if name.fullmatch(child.name))


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that this user may not read
        return True


def _held_keys(
    refs: Refs,
    names: Sequence[Name],
    artifacts: Sequence[Artifact],
    unfinished: Sequence[Partial],
) -> set[str]:
    """Return the keys of all that names hold, or that an unfinished artifact is made from."""
    by_key = {a.key: a for a in artifacts}
    pending = []
    for name in names:
        for kind, _, key in (target.partition("/") for target in name.artifacts):
            record = refs.root.folder(kind, key) / RECORD
            if key not in by_key and _may_exist(record):
                raise DamagedError(
                    f"{record}: cannot be read, so the inputs of this artifact, named "
                    f"{name}, are unknown, and nothing is removed. Run the experiment again.",
                    record,
                )
            pending.append(key)
    for partial in unfinished:
        pending.extend(partial.input_keys())
    held: set[str] = set()
    while pending:
        key = pending.pop()
        if key not in held:
            held.add(key)
            if key in by_key:
                pending.extend(by_key[key].record["inputs"].values())
    return held
