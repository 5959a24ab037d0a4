"""The artifact root: the only authority on what is cached.

```
ROOT/latentqa.json                 marks the folder as a root
ROOT/{kind}/{key[:16]}/            complete: data/, identity.json, record.json
ROOT/{kind}/{key[:16]}.partial/    unfinished: data/, work/, identity.json, progress.json
ROOT/locks/                        one lock a key, one for the root
ROOT/refs/                         names (pipelines/artifacts/refs.py)
ROOT/schedules/                    records of scheduled runs (pipelines/versions/journal.py)
```

A step writes into the partial folder; `commit` lists and hashes what it wrote, syncs it, writes
`record.json` last and renames the folder into place. No record, no artifact.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.errors import ConfigError, DamagedError, StorageError
from core.files import (
    fsync_dir,
    fsync_tree,
    read_file,
    sha256_file,
    storage_errors,
    write_bytes,
    write_json,
)
from pipelines.artifacts.artifact import (
    DATA,
    IDENTITY,
    PROGRESS,
    RECORD,
    WORK,
    Artifact,
    Partial,
    data_files,
    is_system_file,
)
from pipelines.artifacts.cache_key import SHORT, IdentityError, StepIdentity, differences
from pipelines.artifacts.locks import shared
from pipelines.artifacts.records import StoreDigests

_ROOT_LOCK = "root.lock"
MARK = "latentqa.json"
PARTIAL = ".partial"
NOT_KINDS = ("locks", "refs", "schedules")
KIND = r"[A-Za-z0-9_]+"
FOLDER = re.compile(rf"[0-9a-f]{{{SHORT}}}(?:{re.escape(PARTIAL)})?")
"""Name of an artifact's folder, finished or not."""
_OWN_NAMES = frozenset({DATA, WORK, IDENTITY, RECORD, PROGRESS})


class ArtifactRoot:
    """The folder that holds all artifacts of a user or a project."""

    def __init__(self, path: Path) -> None:
        """Take a folder that is there or can be made.

        Raises:
            ConfigError: it, or what it would lie in, is a file or a link to nothing.
        """
        self.path = Path(os.path.abspath(path))
        there = next(p for p in (self.path, *self.path.parents) if os.path.lexists(p))
        if not there.is_dir():
            at = "" if there == self.path else f"{there} "
            raise ConfigError(
                f"{path}: {at}is not a folder; expected a folder for artifacts (--root)."
            )

    def folder(self, kind: str, key: str) -> Path:
        """Return the place of the artifact of `key`, made or not."""
        return self.path / kind / key[:SHORT]

    def find(self, key: str, *kinds: str) -> Artifact | None:
        """Return the artifact of `key`, which is of one of these kinds, unchecked; None if none."""
        found = (Artifact(self.folder(kind, key)) for kind in kinds)
        return next((one for one in found if (one.path / RECORD).is_file()), None)

    def lock(self, kind: str, key: str) -> Path:
        """Return the lock file of the artifact of `key`."""
        return self.path / "locks" / f"{kind}-{key[:SHORT]}.lock"

    @property
    def in_use(self) -> Path:
        """Lock file that runs and commands share, and that garbage collection holds alone."""
        return self.path / "locks" / _ROOT_LOCK

    def mark(self) -> None:
        """Mark the folder as an artifact root, which garbage collection asks for.

        Raises:
            StorageError: the disk is full or read-only.
        """
        if not (self.path / MARK).is_file():
            write_json(self.path / MARK, {"artifact_root": 1})

    @property
    def is_marked(self) -> bool:
        """Whether a run has marked the folder as an artifact root."""
        return (self.path / MARK).is_file()

    def lookup(self, identity: StepIdentity) -> Artifact | None:
        """Return the complete artifact of `identity`, or None.

        Its record, whole key, identity, file names and sizes are checked, and the bytes of files
        that are newer than the record.

        Raises:
            DamagedError: the artifact is there but not as it was committed.
            IdentityError: the folder holds another identity, shown field by field.
        """
        folder = self.folder(identity.kind, identity.key)
        if not folder.exists():
            return None
        artifact = Artifact(folder)
        if artifact.identity != identity.payload() or artifact.key != identity.key:
            found = differences(artifact.identity, identity.payload())
            what = "; ".join(map(str, found)) or f"key {artifact.key} → {identity.key}"
            raise IdentityError(
                f"{folder}: its identity does not match its name ({what}), so it was "
                "changed by hand. Move the folder away and run again."
            )
        artifact.check()
        return artifact

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """Return the complete artifacts, by kind and then oldest first; damaged ones are left out.

        Only folders in the form above count: what a user has put or exported into the root is none.
        """
        found = []
        for folder in self._folders(kind):
            if folder.suffix == PARTIAL or not os.path.isfile(folder / RECORD):
                continue
            artifact = Artifact(folder)
            try:
                order = (artifact.kind, str(artifact.record.get("created")), artifact.key)
            except OSError:  # damaged, or another user's
                continue
            if artifact.key.startswith(folder.name):
                found.append((order, artifact))
        return [artifact for _, artifact in sorted(found, key=lambda pair: pair[0])]

    def unreadable(self) -> list[Path]:
        """Return the folders of artifacts whose record is damaged, which `artifacts` leaves out."""
        found = []
        for folder in self._folders(None):
            if folder.suffix != PARTIAL and os.path.isfile(folder / RECORD):
                try:
                    _ = Artifact(folder).record
                except OSError:
                    found.append(folder)
        return found

    def closed(self) -> list[Path]:
        """Return what this user may not read of the folders named as artifacts and partial ones."""
        readable = os.R_OK | os.X_OK
        found = []
        for folder in self._folders(None):
            if not os.access(folder, readable):
                found.append(folder)
            for file in (folder / RECORD, folder / IDENTITY):
                if os.path.isfile(file) and not os.access(file, os.R_OK):
                    found.append(file)
        return found

    def partials(self, kind: str | None = None) -> list[Partial]:
        """Return the folders that are being made, or were left by a kill or by damage."""
        return [
            Partial(path=folder, kind=folder.parent.name, name=folder.name.removesuffix(PARTIAL))
            for folder in self._folders(kind)
            if _is_own_partial(folder)
        ]

    def owner(self, path: Path) -> Artifact | None:
        """Return the artifact that `path` lies in, or None."""
        path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.path):
            return None
        parts = path.relative_to(self.path).parts
        if len(parts) < 2 or parts[0] in NOT_KINDS or parts[1].endswith(PARTIAL):
            return None
        return Artifact(self.path.joinpath(*parts[:2]))

    def partial(self, identity: StepIdentity) -> Partial:
        """Return the place of the partial folder of `identity`, made or not."""
        folder = self.folder(identity.kind, identity.key)
        return Partial(
            path=folder.with_name(folder.name + PARTIAL), kind=identity.kind, name=folder.name
        )

    def begin(self, identity: StepIdentity, *, keep_output: bool = False) -> Partial:
        """Make the partial folder of `identity`, or take up the one of an earlier attempt.

        The caller holds the key's lock.

        Args:
            identity: what is made.
            keep_output: keep the output of the earlier attempt, for a step that resumes from it.
                Else only its scratch folder is kept, so that no leftover enters the new output.

        Raises:
            StorageError: the disk is full or read-only.
        """
        partial = self.partial(identity)
        with storage_errors(partial.path):
            write_bytes(partial.path / IDENTITY, identity.canonical())
            if not keep_output and partial.data.exists():
                shutil.rmtree(partial.data)
            partial.data.mkdir(exist_ok=True)
            partial.work.mkdir(exist_ok=True)
        return partial

    def demote(self, artifact: Artifact) -> None:
        """Turn a damaged artifact into a partial one that keeps its good files.

        The caller holds the key's lock.
        """
        with storage_errors(artifact.path):
            try:
                bad = artifact.damaged_files()
            except DamagedError:
                bad = []  # no record to compare with: the step checks what it finds
            for name in bad:
                (artifact.data / name).unlink(missing_ok=True)
            (artifact.path / RECORD).unlink(missing_ok=True)
            partial = artifact.path.with_name(artifact.path.name + PARTIAL)
            if partial.exists():
                shutil.rmtree(partial)
            os.rename(artifact.path, partial)
            fsync_dir(partial.parent)

    def commit(
        self,
        identity: StepIdentity,
        record: Mapping[str, Any],
        store: StoreDigests | None = None,
    ) -> Artifact:
        """Make the partial folder of `identity` an artifact.

        Args:
            identity: what was made.
            record: how it was made; key, kind, files and output digest are added.
            store: digests of the output where it is an activation store, whose own root digest
                covers every byte of it and whose files were synced as they were committed.

        Raises:
            StorageError: the disk is full or read-only.
        """
        partial = self.partial(identity)
        with storage_errors(partial.path):
            files: list[list[Any]] = []
            for name, path in data_files(partial.data).items():
                sha256 = sha256_file(path) if store is None else None
                files.append([name, path.stat().st_size, sha256])
            if store is None:
                fsync_tree(partial.data)
                output = digest([[name, sha256] for name, _, sha256 in files])
            else:
                output = store.content
            whole = {
                **record,
                "kind": identity.kind,
                "key": identity.key,
                "version": identity.version,
                "inputs": {role: pair["key"] for role, pair in identity.inputs.items()},
                "files": files,
                "output": output,
                **({} if store is None else {"store_root": store.root}),
            }
            write_json(partial.path / RECORD, whole)
            return self._publish(partial, identity)

    def recover(self, identity: StepIdentity) -> Artifact | None:
        """Finish a commit that was killed after its record and before its rename.

        The caller holds the key's lock.
        """
        partial = self.partial(identity)
        if not (partial.path / RECORD).is_file():
            return None
        unpublished = Artifact(partial.path)
        try:
            whole = unpublished.key == identity.key and not unpublished.damaged_files()
        except DamagedError:
            whole = False
        with storage_errors(partial.path):
            if not whole:
                (partial.path / RECORD).unlink()
                return None
            return self._publish(partial, identity)

    def _publish(self, partial: Partial, identity: StepIdentity) -> Artifact:
        # what a killed write left behind, in the output too, is no part of an artifact
        for path in (*partial.path.iterdir(), *partial.data.rglob("*")):
            if path.is_file() and is_system_file(path):
                path.unlink()
        shutil.rmtree(partial.work, ignore_errors=True)
        (partial.path / PROGRESS).unlink(missing_ok=True)
        folder = self.folder(identity.kind, identity.key)
        os.rename(partial.path, folder)
        fsync_dir(folder.parent)
        return Artifact(folder)

    def _folders(self, kind: str | None) -> Iterator[Path]:
        """Yield the folders that are named as artifacts and partial ones are."""
        kinds = [self.path / kind] if kind else sorted(_subfolders(self.path))
        for place in kinds:
            if place.name not in NOT_KINDS and re.fullmatch(KIND, place.name):
                yield from sorted(p for p in _subfolders(place) if FOLDER.fullmatch(p.name))


@contextlib.contextmanager
def kept_from_gc(path: Path) -> Iterator[None]:
    """Keep garbage collection away from an artifact root while the body reads or names artifacts.

    Nothing is locked where there is nothing to collect: in a folder that no run has marked, and on
    a disk that cannot be written.
    """
    with contextlib.ExitStack() as held:
        if (path / MARK).is_file():
            with contextlib.suppress(StorageError):
                held.enter_context(shared(path / "locks" / _ROOT_LOCK))
        yield


def roots_around(texts: Iterable[str]) -> set[Path]:
    """Return the artifact roots in which those of some texts lie that are paths."""
    found: set[Path] = set()
    for text in texts:
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # of what no path can be
            path = Path(text).expanduser().absolute()
            if path.exists():
                found.update(at for at in (path, *path.parents) if (at / MARK).is_file())
    return found


def _is_own_partial(folder: Path) -> bool:
    """Return whether a folder has the form of an unfinished artifact, and its identity."""
    if folder.suffix != PARTIAL and os.path.isfile(folder / RECORD):
        return False
    try:
        found = {path.name for path in folder.iterdir() if not is_system_file(path)}
        if not found <= _OWN_NAMES:
            return False
        identity = read_file(folder / IDENTITY)
    except FileNotFoundError:
        return folder.suffix == PARTIAL and not found  # killed when the folder alone was made
    except OSError:  # another user's, or no file
        return False
    return hashlib.sha256(identity).hexdigest().startswith(folder.name.removesuffix(PARTIAL))


def _subfolders(path: Path) -> list[Path]:
    """Return the folders in `path`; none where it is no folder, or another user's own."""
    try:
        return [child for child in path.iterdir() if child.is_dir() and child.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
