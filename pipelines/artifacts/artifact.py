"""An artifact: a folder with an output, the identity that decided it, and a record written last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from core.documents.strict_json import load_json
from core.errors import DamagedError, StorageError
from core.files import read_file, sha256_file
from pipelines.artifacts.cache_key import SHORT

DATA, WORK = "data", "work"
IDENTITY, RECORD, PROGRESS = "identity.json", "record.json", "progress.json"
SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that operating systems leave in folders they show; so are some whose name begins with a
dot, as do the temporary files of atomic writes."""
_REQUIRED = {"kind": str, "key": str, "output": str, "files": list, "inputs": dict, "counts": dict}
"""Fields that a record has, and their types in JSON."""
_OPTIONAL: Mapping[str, Callable[[Any], bool]] = {
    "created": lambda value: value is None or _is_time(value),
    "seconds": lambda value: value is None or _is_number(value),
    "cost": lambda value: value is None or _is_number(value),
    "tokens": lambda value: value is None or _is_number(value),
    "locations": lambda value: isinstance(value, dict | None),
    "packages": lambda value: isinstance(value, dict | None),
    "git": lambda value: isinstance(value, dict | None),
}
"""Whether a field that is read, if the record has it, holds what it should."""


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
        """Digest of the output, which the keys of the steps behind it hold."""
        return str(self.record["output"])

    @property
    def store_root(self) -> str | None:
        """Root digest of the activation store that the output is; None for any other output."""
        root = self.record.get("store_root")
        return None if root is None else str(root)

    @property
    def size(self) -> int:
        """Bytes of the output."""
        return sum(size for _, size, _ in self.record["files"])

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """The record.

        Raises:
            DamagedError: it is missing or not JSON of the expected form.
        """
        record = read_json_object(self.path / RECORD)
        if missing := _REQUIRED.keys() - record.keys():
            raise DamagedError(
                f"{self.path / RECORD}: fields {sorted(missing)} are missing.", self.path
            )
        wrong = [name for name, kind in _REQUIRED.items() if not isinstance(record[name], kind)]
        if not wrong and not all(map(_is_file_entry, record["files"])):
            wrong = ["files"]
        if not wrong and not all(isinstance(key, str) for key in record["inputs"].values()):
            wrong = ["inputs"]
        if not wrong:
            wrong = [name for name, fits in _OPTIONAL.items() if not fits(record.get(name))]
        if wrong:
            raise DamagedError(
                f"{self.path / RECORD}: field {wrong[0]} has a wrong type.", self.path
            )
        return record

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The hashed value.

        Raises:
            DamagedError: the file is missing or not JSON.
        """
        return read_json_object(self.path / IDENTITY)

    @property
    def has_own_identity(self) -> bool:
        """Whether the hashed value in the folder is that of the key."""
        try:
            return sha256_file(self.path / IDENTITY) == self.key
        except (FileNotFoundError, StorageError):
            return False

    def check(self) -> None:
        """Compare the output's files with the record: names, sizes, and the bytes of newer files.

        A file that was written after the record is read in full, and so noticed if it was replaced.

        Raises:
            DamagedError: a file is missing, has another size or other bytes, or is not in the
                record.
        """
        committed_ns = (self.path / RECORD).stat().st_mtime_ns
        expected = {name: size for name, size, _ in self.record["files"]}
        stats = {name: path.stat() for name, path in data_files(self.data).items()}
        for name in sorted(expected.keys() | stats.keys()):
            path = self.data / name
            if name not in stats:
                raise DamagedError(f"{path}: the file is missing.", path)
            if name not in expected:
                raise DamagedError(f"{path}: the record does not list this file.", path)
            if stats[name].st_size != expected[name]:
                raise DamagedError(
                    f"{path}: has {stats[name].st_size} bytes, expected {expected[name]} by "
                    "the record.",
                    path,
                )
        if any(stat.st_mtime_ns > committed_ns for stat in stats.values()):
            self.check_bytes(whole_store=True)
            with contextlib.suppress(OSError):  # read-only: the files are read again next time
                os.utime(self.path / RECORD)

    def check_bytes(self, *, whole_store: bool = False) -> None:
        """Read the output and compare it with the record.

        Args:
            whole_store: read all of an activation store too. Without it, its root digest alone is
                compared, because readers verify each shard of a store that they read.

        Raises:
            DamagedError: a file is not as it was committed.
        """
        if self.store_root is None or whole_store:
            bad = self.damaged_files()
        else:
            bad = self._foreign_root()
        if bad:
            path = self.data / bad[0]
            raise DamagedError(
                f"{path}: its content differs from the record's digest. Run the experiment "
                "again to recompute it.",
                path,
            )

    def checked(self) -> Artifact:
        """Compare the bytes with the record, and return the artifact itself, to be opened.

        Raises:
            DamagedError: as `check_bytes`.
        """
        self.check_bytes()
        return self

    def damaged_files(self) -> list[str]:
        """Return the names of the output's files that differ from the record, all read in full.

        They become newer than the record, so that the next run looks at them and recomputes them.
        """
        found = data_files(self.data)
        bad = set(found) - {name for name, _, _ in self.record["files"]}
        for name, size, sha256 in self.record["files"]:
            path = found.get(name)
            if (
                path is None
                or path.stat().st_size != size
                or (sha256 is not None and sha256_file(path) != sha256)
            ):
                bad.add(name)
        if self.store_root is not None:
            from activation_store.read.verify import verify

            found_bad = (finding.file for finding in verify(self.data).damaged)
            bad.update(name for name in found_bad if not is_system_file(Path(name)))
            bad.update(self._foreign_root())
        flag_damaged(found[name] for name in bad & found.keys())
        return sorted(bad)

    def _foreign_root(self) -> list[str]:
        """Return the file that holds the root digest of a store which is not the record's."""
        from activation_store.layout.arrays import ROOT_FILE
        from activation_store.layout.root_record import root_digest

        return [] if root_digest(self.data) == self.store_root else [ROOT_FILE]


@dataclass(frozen=True, kw_only=True)
class Partial:
    """An artifact that is being made, or what a killed run left of one."""

    path: Path
    kind: str
    name: str
    """First digits of its key."""

    @property
    def data(self) -> Path:
        """Folder in which the step writes its output."""
        return self.path / DATA

    @property
    def work(self) -> Path:
        """Scratch folder that outlives a kill and is removed on completion."""
        return self.path / WORK

    @property
    def short(self) -> str:
        """`kind/` and the first digits of the key."""
        return f"{self.kind}/{self.name}"

    def input_keys(self) -> list[str]:
        """Return the keys of its inputs, as far as its identity can be read."""
        try:
            inputs = read_json_object(self.path / IDENTITY)["inputs"]
            return [pair["key"] for pair in inputs.values()]
        except (DamagedError, KeyError, TypeError, AttributeError):
            return []  # killed before it had an identity: there is nothing to resume


def _is_file_entry(entry: Any) -> bool:
    """Return whether a record's entry of a file has name, size and, but for a store, a digest."""
    if not isinstance(entry, list) or len(entry) != 3:
        return False
    name, size, sha256 = entry
    return isinstance(name, str) and type(size) is int and isinstance(sha256, str | None)


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 2**63


def flag_damaged(files: Iterable[Path]) -> None:
    """Make files newer than the record of their artifact, so that the next run looks at them."""
    for path in files:
        with contextlib.suppress(OSError):  # missing, which a run notices, or read-only
            os.utime(path)


def data_files(data: Path) -> dict[str, Path]:
    """Return the files below `data` by relative name, in its order, without system files."""
    found = {
        path.relative_to(data).as_posix(): path
        for path in data.rglob("*")
        if path.is_file() and not is_system_file(path)
    }
    return dict(sorted(found.items()))


def is_system_file(path: Path) -> bool:
    """Return whether a file is no step's: left by an operating system or by a killed write."""
    return path.name.startswith(".") or path.name in SYSTEM_FILES


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of an artifact.

    Raises:
        DamagedError: the file is missing or holds something else.
    """
    try:
        value = load_json(read_file(path))
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: the file is missing.", path) from error
    except (ValueError, StorageError) as error:
        raise DamagedError(f"{path}: not JSON ({error}).", path) from error
    if not isinstance(value, dict):
        raise DamagedError(f"{path}: expected a JSON object.", path)
    return value
