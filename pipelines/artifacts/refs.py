"""REFs: names for artifacts, wherever a command wants one.

```
PATH                    a folder with a record, or anything in it
kind/key-prefix         dump/3fa9c1
name[:version|latest]   latentqa_eval, latentqa_eval:3, paper:final
```

A name stands for a set of artifacts, one a step. It is a small file below `ROOT/refs/`, written
atomically, and everything that a name holds is kept by gc.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DamagedError, RefError
from core.files import write_json
from pipelines.artifacts.identity import SHORT
from pipelines.artifacts.locks import exclusive
from pipelines.artifacts.root import NOT_KINDS, RECORD, Artifact, ArtifactRoot

LATEST = "latest"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A name with its version."""

    name: str
    version: str
    artifacts: tuple[str, ...]
    """`kind/whole key` of each, in the order of the steps."""
    number: int | None = None
    """The numbered version that this is; None for a tag."""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class Refs:
    """The names of one artifact root."""

    def __init__(self, root: ArtifactRoot) -> None:
        self.root = root
        self.folder = root.path / "refs"

    def names(self) -> list[Name]:
        """All names, sorted.

        Raises:
            RefError: a file below `refs/` is no name.
        """
        return [self._read(path) for path in sorted(self.folder.glob("*/*.json"))]

    def get(self, text: str) -> Name | None:
        """The name that `text` spells, or None."""
        name, _, version = text.partition(":")
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(version or LATEST):
            return None
        path = self.folder / name / f"{version or LATEST}.json"
        return self._read(path) if path.is_file() else None

    def publish(self, experiment: str, artifacts: Sequence[Artifact]) -> Name:
        """Point `experiment:latest` at `artifacts`, under a new number where they are a new set."""
        wanted = tuple(f"{a.kind}/{a.key}" for a in artifacts)
        with exclusive(self.root.path / "locks" / "refs.lock", lambda holder: None):
            numbered = {n.number: n for n in self.names() if n.name == experiment and n.number}
            same = [number for number, name in numbered.items() if name.artifacts == wanted]
            number = same[0] if same else max(numbered, default=0) + 1
            if not same:
                self._write(experiment, str(number), wanted, number)
            latest = self.get(experiment)
            if latest is None or latest.artifacts != wanted or latest.number != number:
                self._write(experiment, LATEST, wanted, number)
        return Name(name=experiment, version=str(number), artifacts=wanted, number=number)

    def tag(self, ref: str, name: str) -> Name:
        """Give what `ref` stands for the name `NAME[:version]`.

        Raises:
            RefError: `ref` names nothing, or `name` cannot be a name.
        """
        base, _, version = name.partition(":")
        version = version or LATEST
        if not _NAME.fullmatch(base) or not _NAME.fullmatch(version):
            raise RefError(
                f"{name}: cannot be a name; expected letters, digits, '_', '-' and '.', and at "
                "most one ':' before a version."
            )
        if version.isdigit():
            raise RefError(f"{name}: numbered versions are given by `latentqa run`; choose a word.")
        wanted = tuple(f"{a.kind}/{a.key}" for a in self.resolve_set(ref).values())
        self._write(base, version, wanted, None)
        return Name(name=base, version=version, artifacts=wanted)

    def untag(self, text: str) -> Name:
        """Forget a name; its artifacts stay until gc.

        Raises:
            RefError: there is no such name.
        """
        name = self.get(text)
        if name is None:
            raise RefError(self._nothing(text))
        folder = self.folder / name.name
        (folder / f"{name.version}.json").unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        return name

    def resolve(self, ref: str, kind: str | None = None) -> Artifact:
        """The one artifact that `ref` stands for.

        Args:
            ref: a REF.
            kind: the kind that is wanted; a name's artifact of that kind is taken.

        Raises:
            RefError: `ref` names nothing, too much, or another kind.
        """
        found = self.resolve_set(ref)
        if kind is not None:
            found = {step: a for step, a in found.items() if a.kind == kind} or found
        if len(found) > 1:
            shorts = ", ".join(a.short for a in found.values())
            raise RefError(f"{ref}: names {len(found)} artifacts ({shorts}); give one.")
        artifact = next(iter(found.values()))
        if kind is not None and artifact.kind != kind:
            raise RefError(
                f"{ref}: is {artifact.short}; expected an artifact of kind {kind}. "
                f"`latentqa ls` shows what there is."
            )
        return artifact

    def resolve_set(self, ref: str) -> dict[str, Artifact]:
        """All artifacts that `ref` stands for, by step.

        Raises:
            RefError: `ref` names nothing, or an artifact that is gone.
        """
        by_path = self._at(Path(ref).expanduser())
        if by_path is not None:
            return {by_path.kind: by_path}
        kind, slash, prefix = ref.partition("/")
        if slash:
            artifact = self._by_prefix(ref, kind, prefix)
            return {artifact.kind: artifact}
        name = self.get(ref)
        if name is None or not name.artifacts:
            raise RefError(self._nothing(ref))
        found = [self._named(name, target) for target in name.artifacts]
        return {artifact.kind: artifact for artifact in found}

    def _named(self, name: Name, target: str) -> Artifact:
        kind, _, key = target.partition("/")
        folder = self.root.folder(kind, key)
        if not (folder / RECORD).is_file():
            raise RefError(
                f"{name}: its artifact {kind}/{key[:SHORT]} is gone from {self.root.path}. "
                "Run the experiment again."
            )
        return Artifact(folder)

    def _at(self, path: Path) -> Artifact | None:
        for folder in (path, *path.parents):
            if (folder / RECORD).is_file():
                return Artifact(folder) if path.exists() else None
        return None

    def _by_prefix(self, ref: str, kind: str, prefix: str) -> Artifact:
        found = []
        if kind not in NOT_KINDS and re.fullmatch(r"[0-9a-f]+", prefix):
            found = [a for a in self.root.artifacts(kind) if a.key.startswith(prefix)]
        if not found:
            raise RefError(self._nothing(ref))
        if len(found) > 1:
            shorts = ", ".join(a.short for a in found)
            raise RefError(f"{ref}: fits {len(found)} artifacts ({shorts}); add digits.")
        return found[0]

    def _nothing(self, ref: str) -> str:
        known = sorted({name.name for name in self.names()})
        hint = f"names here: {', '.join(known)}" if known else "no names here yet"
        return (
            f"{ref}: names nothing in {self.root.path} ({hint}); expected a path, "
            "kind/key-prefix or name[:version]. `latentqa ls` shows what there is."
        )

    def _write(self, name: str, version: str, artifacts: Sequence[str], number: int | None) -> None:
        value: dict[str, Any] = {"artifacts": list(artifacts), "number": number}
        write_json(self.folder / name / f"{version}.json", value)

    def _read(self, path: Path) -> Name:
        try:
            value = json.loads(path.read_bytes())
            return Name(
                name=path.parent.name,
                version=path.stem,
                artifacts=tuple(map(str, value["artifacts"])),
                number=value["number"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path}: not a name file ({error}); remove it.", path) from error


def holders(names: list[Name]) -> dict[str, list[str]]:
    """`kind/key` to the names that hold it, each name once with its number where it has one."""
    found: dict[str, list[str]] = {}
    for name in names:
        for target in name.artifacts:
            found.setdefault(target, []).append(str(name))
    return found
