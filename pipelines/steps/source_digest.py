"""Digests of each step's own source files: has the code behind an artifact changed?

A step's own files are the module of its room function and every module of this project that it
imports, at the top or inside a function, except for those that cannot change an output. The
digest is no part of a key: a person decides whether a change alters the output, by raising the
step's version or not (scripts/record_source_digests.py,
tests/pipelines/steps/test_source_digest.py).
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from core.canonical import digest
from core.files import sha256_file
from pipelines.artifacts.records import SOURCE_FOLDER

ROOMS = (
    "core",
    "generators",
    "activation_store",
    "decoder",
    "trainers",
    "evaluators",
    "pipelines",
)
NEUTRAL = frozenset({"core.errors", "core.files", "core.progress"})
"""Modules that cannot change an output: words of errors, safe writing, progress."""


@functools.cache
def source_digest(entry: str) -> str:
    """Digest over the names and bytes of the source files behind module `entry`."""
    return digest([[name, sha256_file(path)] for name, path in sorted(source_files(entry).items())])


def source_files(entry: str) -> dict[str, Path]:
    """Source files behind module `entry`, by module name.

    Raises:
        FileNotFoundError: there is no such module in this project.
    """
    files: dict[str, Path] = {}
    ahead = [entry]
    while ahead:
        module = ahead.pop()
        path = _path(module)
        if module in files or module in NEUTRAL:
            continue
        if path is None:
            raise FileNotFoundError(f"no module {module} in {SOURCE_FOLDER}")
        files[module] = path
        ahead.extend(_imports(path))
    return files


def _imports(path: Path) -> list[str]:
    """Modules of this project that the file at `path` imports anywhere."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found.extend(n for n in names if n.split(".")[0] in ROOMS and _path(n) is not None)
    return found


def _path(module: str) -> Path | None:
    base = SOURCE_FOLDER.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
