"""Imports go one way through the packages, and heavy packages stay where they are needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

ORDER = (
    "core",
    "core.text",
    "core.documents",
    "core.records",
    "core.processes",
    # generators
    "generators.llm.endpoint",
    "generators.llm.chat",
    "generators.llm.log",
    "generators.llm.sending",
    "generators.llm.batch",
    "generators.llm",
    "generators.rules",
    "generators.kinds",
    "generators.splits",
    "generators.making",
    "generators.quality",
    "generators.exchange",
    # activation_store
    "activation_store.tokens",
    "activation_store.model_files",
    "activation_store.target",
    "activation_store.layout",
    "activation_store.read",
    "activation_store.write",
    "activation_store.exchange",
    "decoder",
    "decoder.sources",
    "decoder.steering",
    "trainers.config",
    "trainers.data",
    "trainers.distributed",
    "trainers.loop",
    "trainers.steering",
    "trainers",
    # evaluators
    "evaluators.config",
    "evaluators.stats",
    "evaluators.measure",
    "evaluators.answers",
    "evaluators.identification",
    "evaluators.breakdowns",
    "evaluators.slice_evaluator",
    "evaluators.evaluation",
    "evaluators.slice_tasks",
    "evaluators.robustness",
    "evaluators.tasks",
    "evaluators.control",
    "evaluators.comparison",
    "evaluators.scaling",
    # pipelines
    "pipelines.artifacts",
    "pipelines.experiment",
    "pipelines.reports.pages",
    "pipelines.reports.plots",
    "pipelines.reports.run",
    "pipelines.reports.compare",
    "pipelines.reports.publish",
    "pipelines.reports.rows",
    "pipelines.reports.sweep",
    "pipelines.reports.versions",
    "pipelines.steps",
    "pipelines.running",
    "pipelines.orchestration",
    "pipelines.sweeps",
    "pipelines.versions",
    "pipelines.asking",
    "flows",
    "latentqa.api",
    "latentqa.terminal",
    "latentqa.commands",
    "latentqa",
)
"""Packages, and the folders and files inside them, from the lowest to the highest. Each may import
itself and what stands before it. A module belongs to the longest entry that begins its name."""

PACKAGES = tuple(dict.fromkeys(entry.split(".")[0] for entry in ORDER))
HEAVY = ("torch", "transformers", "datasets", "prefect", "peft", "zarr", "openai", "matplotlib")


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import statement of the project."""

    importer: str
    """Module that has the statement."""
    imported: str
    """Module that it names."""
    where: str
    """File and line."""


def module_files(checkout: Path) -> dict[str, Path]:
    """Map the name of every module of the project to its file."""
    found = {"flows": checkout / "flows.py"}
    for package in PACKAGES:
        for path in (checkout / package).rglob("*.py"):
            name = ".".join(path.relative_to(checkout).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def all_imports(checkout: Path) -> list[Import]:
    """List every import of every module, at the top or inside functions."""
    modules = module_files(checkout)
    found = []
    for importer, path in sorted(modules.items()):
        for line, module, names in import_statements(path.read_text(encoding="utf-8")):
            whole = [f"{module}.{name}" if module else name for name in names]
            imported = [name if name in modules else module or name for name in whole]
            where = f"{path.relative_to(checkout).as_posix()}:{line}"
            found += [Import(importer=importer, imported=name, where=where) for name in imported]
    return found


@functools.cache  # most of a copied checkout has the same text
def import_statements(text: str) -> list[tuple[int, str, list[str]]]:
    """List line, module (empty for a plain `import`) and names of each import statement."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.append((node.lineno, "", [alias.name for alias in node.names]))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found.append((node.lineno, str(node.module), [alias.name for alias in node.names]))
    return found


def level(module: str) -> int:
    """Find the place in `ORDER` of the entry that `module` belongs to."""
    fitting = [entry for entry in ORDER if module == entry or module.startswith(entry + ".")]
    if not fitting and module in PACKAGES:  # a package's own __init__: below all its parts
        return next(i for i, entry in enumerate(ORDER) if entry.startswith(module + "."))
    assert fitting, f"{module}: has no place in ORDER"
    return ORDER.index(max(fitting, key=len))


def upward_imports(checkout: Path) -> list[str]:
    """List the imports that go up, each with its file and line."""
    return [
        f"{one.where}: {one.importer} imports {one.imported}, which stands above it"
        for one in all_imports(checkout)
        if one.imported.split(".")[0] in PACKAGES and level(one.imported) > level(one.importer)
    ]


def circle(checkout: Path) -> list[str]:
    """Find modules that import each other in a circle; empty where there are none."""
    modules = module_files(checkout)
    imports: dict[str, set[str]] = {name: set() for name in modules}
    for one in all_imports(checkout):
        if one.imported in modules and one.imported != one.importer:
            imports[one.importer].add(one.imported)
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def importers(*packages: str) -> set[str]:
    """Name the modules that import one of `packages` or anything below it."""
    return {one.importer for one in all_imports(CHECKOUT) if one.imported.split(".")[0] in packages}


def loaded_by(code: str) -> set[str]:
    """List the top-level modules that a new Python holds after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    return {name.split(".")[0] for name in line.split()}


def test_imports_go_down() -> None:
    assert upward_imports(CHECKOUT) == []


def test_no_circles() -> None:
    assert circle(CHECKOUT) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core.files", "from generators.splits import SplitConfig"),
        ("generators.llm.sending.sender", "from generators.making.rows import conversation_rows"),
        ("activation_store.layout.plan", "import activation_store.write.dump"),
        ("decoder.model", "from trainers.data.rows import Row"),
        ("pipelines.steps.order", "from pipelines.running.runner import Runner"),
        ("pipelines.running.runner", "import flows"),
    ],
)
def test_an_injected_upward_import_is_named(module: str, line: str, tmp_path: Path) -> None:
    for name, path in module_files(CHECKOUT).items():
        copy = tmp_path / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        copy.write_text(text + (f"\n\n{line}\n" if name == module else ""), encoding="utf-8")
    (found,) = upward_imports(tmp_path)
    assert found.startswith(module.replace(".", "/") + ".py:")


def test_an_injected_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "flows.py").write_text("")
    (tmp_path / "core" / "one.py").write_text("import core.two\n")
    (tmp_path / "core" / "two.py").write_text("def f():\n    from core import one\n")
    assert set(circle(tmp_path)) == {"core.one", "core.two"}


def test_generators_import_no_torch() -> None:
    found = importers("torch", "transformers", "peft", "accelerate")
    assert not {name for name in found if name.startswith(("generators", "core"))}


def test_openai_stands_in_one_file() -> None:
    assert len(importers("openai")) <= 1


def test_prefect_stands_in_flows_and_orchestration_alone() -> None:
    found = importers("prefect")
    assert {name for name in found if not name.startswith("pipelines.orchestration.")} == {"flows"}


def test_help_loads_nothing_heavy() -> None:
    code = """
import latentqa.cli
try:
    latentqa.cli.main(["--help"])
except SystemExit as exit:
    assert exit.code == 0
"""
    assert loaded_by(code) & set(HEAVY) == set()


def test_an_experiment_is_read_without_anything_heavy() -> None:
    code = "import pipelines.experiment.config, pipelines.running.runner, pipelines.running.plan"
    assert loaded_by(code) & set(HEAVY) == set()
