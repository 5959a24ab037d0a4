"""Imports go one way through the rooms, and heavy packages stay where they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ROOMS = (
    "generators",
    "activation_store",
    "decoder",
    "trainers",
    "evaluators",
    "pipelines",
    "flows",
)
"""From the lowest room to the highest; each may import those before it."""
EXCEPTIONS = {("pipelines/cli.py", "flows")}
"""The command line starts flows inside its commands."""

HEAVY = ("torch", "transformers", "datasets", "prefect", "peft", "zarr", "openai", "matplotlib")


def files(room: str) -> list[Path]:
    if room == "flows":
        return [CHECKOUT / "flows.py"]
    return sorted((CHECKOUT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything that `path` imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module).split(".")[0])
    return found


def importers(package: str) -> set[str]:
    return {
        path.relative_to(CHECKOUT).as_posix()
        for room in ROOMS
        for path in files(room)
        if package in imported(path)
    }


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a new Python holds after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    return {name.split(".")[0] for name in line.split()}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_lower_rooms(room: str) -> None:
    higher = set(ROOMS[ROOMS.index(room) + 1 :])
    found = {
        (path.relative_to(CHECKOUT).as_posix(), name)
        for path in files(room)
        for name in imported(path) & higher
    }
    assert found - EXCEPTIONS == set()


def test_generators_import_no_torch() -> None:
    heavy = {"torch", "transformers", "peft", "accelerate"}
    assert [path.name for path in files("generators") if imported(path) & heavy] == []


def test_openai_stands_in_one_file() -> None:
    assert len(importers("openai")) <= 1


def test_prefect_stands_in_flows_alone() -> None:
    assert importers("prefect") == {"flows.py"}


def test_flows_are_imported_inside_commands_alone() -> None:
    tree = ast.parse((CHECKOUT / "pipelines" / "cli.py").read_text())
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert "flows" not in top


def test_help_loads_nothing_heavy() -> None:
    code = """
import pipelines.cli
try:
    pipelines.cli.main(["--help"])
except SystemExit as exit:
    assert exit.code == 0
"""
    assert loaded_by(code) & set(HEAVY) == set()


def test_an_experiment_is_read_without_anything_heavy() -> None:
    code = "import pipelines.config, pipelines.runner, pipelines.plan"
    assert loaded_by(code) & set(HEAVY) == set()
