"""The artifact root: the only authority on what is done.

```
ROOT/{kind}/{key[:16]}/            complete: data/, identity.json, record.json
ROOT/{kind}/{key[:16]}.partial/    under way or killed: data/, work/, identity.json, progress.json
ROOT/locks/                        one lock a key, one for the root
ROOT/refs/                         names (pipelines/artifacts/refs.py)
```

A step writes into the partial folder; `commit` lists and hashes what it wrote, syncs it, writes
`record.json` last and renames the folder into place. No record, no artifact.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.canonical import digest
from core.errors import DamagedError
from core.files import fsync_dir, fsync_tree, sha256_file, storage_errors, write_bytes, write_json
from pipelines.artifacts.identity import SHORT, IdentityError, StepIdentity, differences

DATA, WORK = "data", "work"
IDENTITY, RECORD, PROGRESS = "identity.json", "record.json", "progress.json"
PARTIAL = ".partial"
NOT_KINDS = ("locks", "refs")


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: a folder with a record."""

    path: Path

    @property
    def kind(self) -> str:
        """Kind, which is the name of the step that made it."""
        return str(self.record["kind"])

    @property
    def key(self) -> str:
        """Whole key, 64 hex digits."""
        return str(self.record["key"])

    @property
    def short(self) -> str:
        """`kind/` and the first digits of the key."""
        return f"{self.kind}/{self.key[:SHORT]}"

    @property
    def data(self) -> Path:
        """Folder of the step's output."""
        return self.path / DATA

    @property
    def output(self) -> str:
        """Digest of the output."""
        return str(self.record["output"])

    @property
    def size(self) -> int:
        """Bytes of the output."""
        return sum(size for _, size, _ in self.record["files"])

    @cached_property
    def record(self) -> dict[str, Any]:
        """The record.

        Raises:
            DamagedError: it is missing or not JSON of the expected form.
        """
        record = _read_json(self.path / RECORD)
        missing = {"kind", "key", "output", "files", "inputs", "counts"} - record.keys()
        if missing:
            raise DamagedError(f"{self.path / RECORD}: lacks {sorted(missing)}.", self.path)
        return record

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The hashed value.

        Raises:
            DamagedError: the file is missing or not JSON.
        """
        return _read_json(self.path / IDENTITY)

    def check_sizes(self) -> None:
        """Compare the output's files and their sizes with the record.

        Raises:
            DamagedError: a file is missing, has another size, or is not in the record.
        """
        expected = {name: size for name, size, _ in self.record["files"]}
        found = {name: path.stat().st_size for name, path in data_files(self.data)}
        for name in sorted(expected.keys() | found.keys()):
            if name not in found:
                raise DamagedError(f"{self.data / name}: the file is missing.", self.data / name)
            if name not in expected:
                raise DamagedError(
                    f"{self.data / name}: not a file of this artifact.", self.data / name
                )
            if found[name] != expected[name]:
                raise DamagedError(
                    f"{self.data / name}: {found[name]} bytes, the record says {expected[name]}.",
                    self.data / name,
                )

    def damaged_files(self) -> list[str]:
        """Names of the output's files whose bytes differ from the record, read in full."""
        bad = []
        found = dict(data_files(self.data))
        for name, size, sha256 in self.record["files"]:
            path = found.pop(name, None)
            if path is None or path.stat().st_size != size or sha256_file(path) != sha256:
                bad.append(name)
        return sorted([*bad, *found])


@dataclass(frozen=True, kw_only=True)
class Partial:
    """An artifact under way, or what a killed run left of one."""

    path: Path
    kind: str
    name: str
    """First digits of its key."""

    @property
    def data(self) -> Path:
        """Where the step writes its output."""
        return self.path / DATA

    @property
    def work(self) -> Path:
        """Scratch folder that outlives a kill and is removed on completion."""
        return self.path / WORK

    @property
    def short(self) -> str:
        """`kind/` and the first digits of the key."""
        return f"{self.kind}/{self.name}"

    def inputs(self) -> list[str]:
        """Keys of the inputs that it is made from, as far as its identity can be read."""
        try:
            identity = _read_json(self.path / IDENTITY)
            return [pair["key"] for pair in identity["inputs"].values()]
        except (DamagedError, KeyError, TypeError, AttributeError):
            return []  # left without an identity by a kill: it resumes nothing


class ArtifactRoot:
    """The folder that holds all artifacts of a user or a project."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))

    def folder(self, kind: str, key: str) -> Path:
        """Where the artifact of `key` stands once it is complete."""
        return self.path / kind / key[:SHORT]

    def lock(self, kind: str, key: str) -> Path:
        """Lock file of the artifact of `key`."""
        return self.path / "locks" / f"{kind}-{key[:SHORT]}.lock"

    @property
    def in_use(self) -> Path:
        """Lock file that runs share and gc takes alone."""
        return self.path / "locks" / "root.lock"

    def lookup(self, identity: StepIdentity) -> Artifact | None:
        """The complete artifact of `identity`, or None.

        Its record, whole key, identity, file list and file sizes are checked, its bytes are not.

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
            words = "; ".join(map(str, found)) or f"key {artifact.key} → {identity.key}"
            raise IdentityError(
                f"{folder}: holds another identity than its name says ({words}). "
                "It was changed by hand: move the folder away and run again."
            )
        artifact.check_sizes()
        return artifact

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """Complete artifacts, by kind and then oldest first; damaged records are left out."""
        found = []
        for folder in self._folders(kind):
            if folder.suffix != PARTIAL and (folder / RECORD).is_file():
                artifact = Artifact(folder)
                try:
                    order = (artifact.kind, str(artifact.record.get("created")), artifact.key)
                except DamagedError:
                    continue
                found.append((order, artifact))
        return [artifact for _, artifact in sorted(found, key=lambda pair: pair[0])]

    def partials(self, kind: str | None = None) -> list[Partial]:
        """Folders without a record: under way, or left by a kill."""
        return [
            Partial(path=folder, kind=folder.parent.name, name=folder.name.removesuffix(PARTIAL))
            for folder in self._folders(kind)
            if folder.suffix == PARTIAL or not (folder / RECORD).is_file()
        ]

    def owner(self, path: Path) -> Artifact | None:
        """The artifact that `path` lies in, or None."""
        path = Path(os.path.abspath(path))
        if not path.is_relative_to(self.path):
            return None
        parts = path.relative_to(self.path).parts
        if len(parts) < 2 or parts[0] in NOT_KINDS or parts[1].endswith(PARTIAL):
            return None
        return Artifact(self.path.joinpath(*parts[:2]))

    def partial(self, identity: StepIdentity) -> Partial:
        """The place of the partial folder of `identity`, made or not."""
        folder = self.folder(identity.kind, identity.key)
        return Partial(
            path=folder.with_name(folder.name + PARTIAL), kind=identity.kind, name=folder.name
        )

    def begin(self, identity: StepIdentity) -> Partial:
        """The partial folder of `identity`, new or as an earlier attempt left it.

        The caller holds the key's lock.

        Raises:
            StorageError: the disk is full or read-only.
        """
        partial = self.partial(identity)
        with storage_errors(partial.path):
            partial.data.mkdir(parents=True, exist_ok=True)
            partial.work.mkdir(exist_ok=True)
            write_bytes(partial.path / IDENTITY, identity.canonical())
        return partial

    def demote(self, artifact: Artifact) -> None:
        """Turn a damaged artifact into a partial one that keeps the files which are still good.

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

    def commit(self, identity: StepIdentity, record: dict[str, Any]) -> Artifact:
        """Make the partial folder of `identity` an artifact.

        Args:
            identity: what was made.
            record: everything about how; key, kind, files and output digest are added.

        Raises:
            StorageError: the disk is full or read-only.
        """
        partial = self.partial(identity)
        with storage_errors(partial.path):
            files = [
                [name, path.stat().st_size, sha256_file(path)]
                for name, path in data_files(partial.data)
            ]
            fsync_tree(partial.data)
            record = {
                **record,
                "kind": identity.kind,
                "key": identity.key,
                "version": identity.version,
                "inputs": {role: pair["key"] for role, pair in identity.inputs.items()},
                "files": files,
                "output": digest([[name, sha256] for name, _, sha256 in files]),
            }
            write_json(partial.path / RECORD, record)
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
        if not whole:
            (partial.path / RECORD).unlink()
            return None
        with storage_errors(partial.path):
            return self._publish(partial, identity)

    def _publish(self, partial: Partial, identity: StepIdentity) -> Artifact:
        shutil.rmtree(partial.work, ignore_errors=True)
        (partial.path / PROGRESS).unlink(missing_ok=True)
        folder = self.folder(identity.kind, identity.key)
        os.rename(partial.path, folder)
        fsync_dir(folder.parent)
        return Artifact(folder)

    def _folders(self, kind: str | None) -> Iterator[Path]:
        kinds = [self.path / kind] if kind else sorted(_subfolders(self.path))
        for place in kinds:
            if place.name not in NOT_KINDS:
                yield from sorted(_subfolders(place))


def data_files(data: Path) -> list[tuple[str, Path]]:
    """Files below `data` with their relative names, sorted by name."""
    return sorted(
        (path.relative_to(data).as_posix(), path) for path in data.rglob("*") if path.is_file()
    )


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [child for child in path.iterdir() if child.is_dir() and child.name[0] != "."]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: the file is missing.", path) from error
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error}).", path) from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path}: expected a JSON object.", path)
    return value
