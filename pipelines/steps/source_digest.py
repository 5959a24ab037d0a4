"""Digests of each step's own source code: has the code behind an artifact changed?

A step's own code is the module of its entry function and every module of this project that it
imports, at the top or inside a function, except for those that cannot change an output. What is
hashed is the syntax tree without docstrings, so that comments, layout and prose are free to change.
The digest is no part of a key: a person decides whether a change alters the output, by raising the
step's version or not (scripts/record_source_digests.py).
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from core.documents.canonical import digest
from pipelines.artifacts.records import SOURCE_FOLDER

PACKAGES = (
    "core",
    "generators",
    "activation_store",
    "decoder",
    "trainers",
    "evaluators",
    "pipelines",
)
NEUTRAL = frozenset({"core.errors", "core.files", "core.progress"})
"""Modules that cannot change an output: error messages, safe writing, progress."""


@functools.cache
def source_digest(entry: str) -> str:
    """Return the digest over the names and the code of the modules behind module `entry`.

    Raises:
        FileNotFoundError: there is no such module in this project.
    """
    return digest([[name, _parsed(name)[0]] for name in sorted(source_modules(entry))])


@functools.cache
def source_modules(entry: str) -> frozenset[str]:
    """Return the names of the modules behind module `entry`.

    Raises:
        FileNotFoundError: there is no such module in this project.
    """
    found: set[str] = set()
    pending = [entry]
    while pending:
        module = pending.pop()
        if module not in found and module not in NEUTRAL:
            found.add(module)
            pending.extend(_parsed(module)[1])
    return frozenset(found)


def code_digest(tree: ast.Module) -> str:
    """Return the sha256 of a syntax tree without its docstrings, which are taken out of it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    # a docstring, or the text below an attribute that documents it
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@functools.cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]]:
    """Return the digest of a module's code, and the project's modules that it imports anywhere."""
    path = _path(module)
    if path is None:
        raise FileNotFoundError(f"no module {module} in {SOURCE_FOLDER}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    own = (name for name in names if name.split(".")[0] in PACKAGES and _path(name) is not None)
    return code_digest(tree), tuple(dict.fromkeys(own))


@functools.cache
def _path(module: str) -> Path | None:
    base = SOURCE_FOLDER.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
