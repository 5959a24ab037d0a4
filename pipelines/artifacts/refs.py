"""REFs: the names by which commands take artifacts.

```
PATH                    a folder with a record, or anything in it
kind/key-prefix         dump/3fa9c1
name[:version|latest]   latentqa_eval, latentqa_eval:3, paper:final
```

A name stands for a set of artifacts, one a step. It is a small file below `ROOT/refs/`, written
atomically, and garbage collection keeps everything that a name holds. Runs move the numbered
versions and `latest` of their experiment; tags are the user's, and no run moves one.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.documents.strict_json import load_json
from core.errors import DamagedError, RefError
from core.files import read_file, write_json
from core.text.redact import holds_credential
from pipelines.artifacts.artifact import RECORD, Artifact, is_system_file
from pipelines.artifacts.cache_key import SHORT
from pipelines.artifacts.locks import exclusive
from pipelines.artifacts.root import KIND, NOT_KINDS, ArtifactRoot

LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HELD = re.compile(rf"{KIND}/[0-9a-f]{{64}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A name with its version."""

    name: str
    version: str
    artifacts: tuple[str, ...]
    """`kind/whole key` of each, in the order of the steps."""
    number: int | None = None
    """The numbered version that this is; None for a tag."""
    whole: bool = True
    """False for a run that stopped at `--until`."""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class Refs:
    """The names of one artifact root."""

    def __init__(self, root: ArtifactRoot) -> None:
        self.root = root
        self.folder = root.path / "refs"

    def names(self) -> list[Name]:
        """Return all names that can be read, sorted."""
        return [name for path in self._files() if (name := self._read_or_none(path))]

    def broken_files(self) -> list[Path]:
        """Return the files and folders of names that cannot be read: what they hold is unknown."""
        if _is_closed(self.folder):
            return [self.folder]
        if not self.folder.exists():
            return []
        found = []
        for folder in sorted(p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)):
            if not folder.is_file() and _is_closed(folder):
                found.append(folder)
            files = [path for path in self._files(folder.name) if _NAME.fullmatch(path.stem)]
            found += [path for path in files if self._read_or_none(path) is None]
        return found

    def get(self, text: str) -> Name | None:
        """Return the name that `text` spells, or None.

        Raises:
            DamagedError: there is such a file, and it cannot be read.
        """
        name, _, version = text.partition(":")
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(version or LATEST):
            return None
        path = self._file(name, version or LATEST)
        return self._read(path) if path.is_file() else None

    def check_free(self, experiment: str) -> None:
        """Check that `experiment` is no tag of the user's, which a run would have to move.

        Raises:
            RefError: it is one.
        """
        latest = self._read_or_none(self._file(experiment, LATEST))
        if latest is not None and latest.number is None:
            raise RefError(
                f"{experiment}: is a tag in {self.root.path}, and a run does not move tags. "
                f"Rename the experiment, or remove the tag: latentqa untag {experiment}"
            )

    def publish(
        self,
        experiment: str,
        artifacts: Sequence[Artifact],
        *,
        whole: bool = True,
        latest: bool = True,
    ) -> Name:
        """Give a finished run of `experiment` its number, and point `experiment:latest` at it.

        A run whose artifacts an earlier version holds has the number of that version. A run that
        stopped early moves `latest` only where no whole run has it.

        Args:
            experiment: name of the experiment.
            artifacts: what the run made or found, in the order of the steps.
            whole: whether it went through all steps.
            latest: whether `latest` may move; else `promote` moves it later.
        """
        wanted = tuple(f"{a.kind}/{a.key}" for a in artifacts)
        name, writes = self._changes(experiment, wanted, whole=whole, latest=latest)
        if not writes:  # so that a run which finds everything needs no root that can be written to
            return name
        with exclusive(self.root.path / "locks" / "refs.lock", lambda holder: None):
            name, writes = self._changes(experiment, wanted, whole=whole, latest=latest)
            for one in writes:
                self._write(one)
        return name

    def _changes(
        self, experiment: str, wanted: tuple[str, ...], *, whole: bool, latest: bool
    ) -> tuple[Name, list[Name]]:
        """Return the name of a finished run, and the names that are to be written for it."""
        versions = [n for n in self.names() if n.name == experiment and n.version.isdigit()]
        same = [n for n in versions if _holds(n, wanted, whole=whole)]
        number = 1 + max(self._numbers(experiment), default=0)
        new = Name(
            name=experiment, version=str(number), artifacts=wanted, number=number, whole=whole
        )
        name, writes = (same[-1], []) if same else (new, [new])
        now = self._read_or_none(self._file(experiment, LATEST))
        is_tag = now is not None and now.number is None
        moves = latest and not is_tag and (whole or now is None or not now.whole)
        if moves and (now is None or now.number != name.number):
            writes.append(replace(name, version=LATEST))
        return name, writes

    def promote(self, name: Name) -> None:
        """Point `latest` of an experiment at one of its numbered versions.

        Raises:
            RefError: `latest` is a tag of the user's, or `name` is no numbered version.
        """
        if name.number is None:
            raise RefError(f"{name}: is a tag, expected a numbered version of an experiment.")
        self.check_free(name.name)
        with exclusive(self.root.path / "locks" / "refs.lock", lambda holder: None):
            self._write(replace(name, version=LATEST))

    def tag(self, ref: str, name: str) -> Name:
        """Give what `ref` stands for the name `NAME[:version]`.

        Raises:
            RefError: `ref` names nothing, or `name` cannot be a name or is an experiment's.
        """
        if holds_credential(name):
            raise RefError("tag: the new name looks like an API key, which a name must not hold.")
        base, _, version = name.partition(":")
        version = version or LATEST
        if not _NAME.fullmatch(base) or not _NAME.fullmatch(version):
            raise RefError(
                f"{name}: not a valid name, expected letters, digits, '_', '-' and '.', and "
                "at most one ':' before a version."
            )
        if version.isdigit():
            raise RefError(
                f"{name}: got a number as version, expected a word, such as best: `latentqa run` "
                "numbers its runs itself."
            )
        if version == LATEST and any(self._numbers(base)):
            raise RefError(
                f"{name}: is the name of an experiment and refers to its newest run. Choose "
                f"another name, or a word for a version: {base}:WORD"
            )
        artifacts = tuple(f"{a.kind}/{a.key}" for a in self.resolve_set(ref).values())
        made = Name(name=base, version=version, artifacts=artifacts)
        self._write(made)
        return made

    def untag(self, text: str) -> Name:
        """Forget a name; its artifacts stay until garbage collection.

        Raises:
            RefError: there is no such name.
        """
        name = self.get(text)
        if name is None:
            raise RefError(self._nothing(text))
        path = self._file(name.name, name.version)
        path.unlink()
        if not any(path.parent.glob("*.json")):
            shutil.rmtree(path.parent)
        return name

    def resolve(self, ref: str, kind: str | None = None) -> Artifact:
        """Return the one artifact that `ref` stands for.

        Args:
            ref: a REF.
            kind: the wanted kind; of what a name holds, the artifact of that kind is taken.

        Raises:
            RefError: `ref` names nothing, too much, or another kind.
        """
        found = self.resolve_set(ref)
        if kind is not None and len(found) > 1:
            if kind not in found:
                raise RefError(
                    f"{ref}: has {', '.join(found)}, expected an artifact of kind {kind}. "
                    "Run the experiment up to that step."
                )
            found = {kind: found[kind]}
        if len(found) > 1:
            shorts = ", ".join(a.short for a in found.values())
            raise RefError(f"{ref}: names {len(found)} artifacts ({shorts}), expected one.")
        artifact = next(iter(found.values()))
        if kind is not None and artifact.kind != kind:
            raise RefError(
                f"{ref}: is {artifact.short}, expected an artifact of kind {kind}. "
                "`latentqa ls` lists all."
            )
        return artifact

    def resolve_set(self, ref: str) -> dict[str, Artifact]:
        """Return all artifacts that `ref` stands for, by step.

        A name comes before a folder of the same name; write `./NAME` for the folder.

        Raises:
            RefError: `ref` names nothing, or an artifact that is gone.
            DamagedError: the file of the name cannot be read.
        """
        name = self.get(ref)
        if name is not None and name.artifacts:
            found = [self._named(name, target) for target in name.artifacts]
            return {artifact.kind: artifact for artifact in found}
        artifact = self._by_prefix(ref) or _artifact_at(Path(ref).expanduser())
        if artifact is None:
            raise RefError(self._nothing(ref))
        return {artifact.kind: artifact}

    def _named(self, name: Name, target: str) -> Artifact:
        kind, _, key = target.partition("/")
        artifact = self.root.find(key, kind)
        if artifact is None:
            raise RefError(
                f"{name}: its artifact {kind}/{key[:SHORT]} is gone from {self.root.path}. "
                "Run the experiment again."
            )
        return artifact

    def _by_prefix(self, ref: str) -> Artifact | None:
        kind, _, prefix = ref.partition("/")
        if kind in NOT_KINDS or not re.fullmatch(r"[0-9a-f]+", prefix):
            return None
        found = [a for a in self.root.artifacts(kind) if a.key.startswith(prefix)]
        if len(found) > 1:
            shorts = ", ".join(a.short for a in found)
            raise RefError(
                f"{ref}: matches {len(found)} artifacts ({shorts}), expected "
                "one. Give more digits of the key."
            )
        return found[0] if found else None

    def _nothing(self, ref: str) -> str:
        known = sorted({name.name for name in self.names()})
        base = ref.partition(":")[0]
        hint = f"names here: {', '.join(known)}" if known else "no names here yet"
        if not known and not self.root.is_marked:
            hint = "no run has made this folder its root; check --root"
        elif near := difflib.get_close_matches(Path(base).name.removesuffix(".yaml"), known, n=1):
            hint = f"did you mean {near[0]}?"
        if base in known:
            own = (name.version for name in self.names() if name.name == base)
            versions = sorted(own, key=lambda version: (len(version), version))
            hint = f"versions of {base} here: {', '.join(versions)}"
        return (
            f"{ref}: names nothing in {self.root.path} ({hint}); expected a path, "
            "kind/key-prefix or name[:version]. `latentqa ls` shows what there is."
        )

    def _numbers(self, name: str) -> list[int]:
        """Return the numbers of all versions of `name`, of broken files too."""
        return [int(p.stem) for p in self._files(name) if p.stem.isdigit()]

    def _files(self, name: str = "*") -> list[Path]:
        return sorted(p for p in self.folder.glob(f"{name}/*.json") if not is_system_file(p))

    def _file(self, name: str, version: str) -> Path:
        return self.folder / name / f"{version}.json"

    def _write(self, name: Name) -> None:
        value = {"artifacts": list(name.artifacts), "number": name.number, "whole": name.whole}
        write_json(self._file(name.name, name.version), value)

    def _read(self, path: Path) -> Name:
        try:
            value = load_json(read_file(path))
            held, number = value["artifacts"], value["number"]
            if not (isinstance(held, list) and held and all(map(_HELD.fullmatch, held))):
                raise ValueError(f"artifacts {held!r:.40}; expected a list of KIND/KEY")
            if not (number is None or type(number) is int):
                raise ValueError(f"number {number!r:.40}; expected a whole number or null")
            return Name(
                name=path.parent.name,
                version=path.stem,
                artifacts=tuple(held),
                number=number,
                whole=bool(value.get("whole", True)),
            )
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError
        ) as error:  # fmt: skip
            raise DamagedError(f"{path}: not a name file ({error}); remove it.", path) from error

    def _read_or_none(self, path: Path) -> Name | None:
        try:
            return self._read(path)
        except DamagedError:
            return None


def _holds(name: Name, wanted: tuple[str, ...], *, whole: bool) -> bool:
    """Return whether a version is this run, or holds all of a run that stopped early."""
    return name.artifacts == wanted if whole else set(wanted) <= set(name.artifacts)


def _is_closed(path: Path) -> bool:
    """Tell whether something is at `path`, a link at least, that cannot be listed as a folder."""
    try:
        os.scandir(path).close()
    except FileNotFoundError:
        return path.is_symlink()
    except OSError:
        return True
    return False


def _artifact_at(path: Path) -> Artifact | None:
    """Return the artifact that an existing path is, or lies in."""
    for folder in (path, *path.parents):
        if (folder / RECORD).is_file():
            return Artifact(folder) if path.exists() else None
    return None


def holders(names: Sequence[Name]) -> dict[str, list[str]]:
    """Return the names that hold each `kind/key`, each name once with its number if it has one."""
    found: dict[str, list[str]] = {}
    for name in names:
        for target in name.artifacts:
            found.setdefault(target, []).append(str(name))
    return found
