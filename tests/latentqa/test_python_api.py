"""`import latentqa`: what it offers, its examples, and what it does not load."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_steps import use_fake_steps

import latentqa
import latentqa.api
from core.errors import ConfigError
from pipelines.artifacts.root import ArtifactRoot

pytestmark = pytest.mark.usefixtures("unrendered")

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an experiment file whose steps write a few bytes each."""
    use_fake_steps(tmp_path, monkeypatch)
    return tmp_path / "fake.yaml"


def run_examples(name: str, **names: Any) -> None:
    """Run the examples of a docstring of the API, which find `names`."""
    (test,) = doctest.DocTestFinder(recurse=False).find(
        getattr(latentqa, name), name, globs={**vars(latentqa.api), **names}
    )
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", ["run", "plan", "results", "sweep"])
def test_the_examples_of_a_run_hold(name: str, config: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    latentqa.run(latentqa.Experiment(experiment="fake", data={"path": "."}), root=root)
    run_examples(name, config=str(config), root=root)


@pytest.mark.parametrize("name", ["load", "open_store", "steer"])
def test_the_examples_of_a_decoder_hold(name: str, root: Path) -> None:
    run_examples(name, root=str(root))


def test_every_name_has_a_docstring() -> None:
    assert set(latentqa.__all__) <= set(dir(latentqa))
    for name in latentqa.__all__:
        assert len(getattr(latentqa, name).__doc__) > 40


def test_an_experiment_made_in_python_is_that_of_its_file(config: Path, tmp_path: Path) -> None:
    made = latentqa.Experiment(experiment="fake", data={"path": "."})
    result = latentqa.run(made, root=tmp_path / "root")
    assert [step.cached for step in result.steps] == [False] * 5
    again = latentqa.run(config, root=tmp_path / "root")
    assert [step.artifact.key for step in again.steps] == [
        step.artifact.key for step in result.steps
    ]


def test_overrides_belong_to_a_file(config: Path, tmp_path: Path) -> None:
    made = latentqa.Experiment(experiment="fake", data={"path": "."})
    with pytest.raises(ConfigError, match="overrides: got 1 together with an Experiment"):
        latentqa.plan(made, root=tmp_path, overrides=["dump.layers=[3]"])


def test_a_store_is_opened_by_its_folder(root: Path) -> None:
    (dump,) = ArtifactRoot(root).artifacts("dump")
    by_folder, by_name = (
        latentqa.open_store(str(dump.data)),
        latentqa.open_store("toy", root=str(root)),
    )
    assert by_folder.root == by_name.root == dump.data


def test_the_root_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("LATENTQA_ROOT", str(root))
    assert latentqa.open_store("toy").layers == (2,)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        latentqa.nothing  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("latentqa", ("torch", "transformers", "prefect", "pydantic", "pyarrow", "typer")),
        (
            "pipelines.reports.run.results, pipelines.reports.compare.comparison",
            ("torch", "transformers", "prefect", "datasets"),
        ),
        (
            "pipelines.reports.run.results, pipelines.asking.map_view, "
            "pipelines.reports.run.sections.tasks, pipelines.reports.run.sections.control",
            ("torch", "matplotlib", "scipy.stats"),
        ),
    ],
    ids=["latentqa", "results and compare", "tables and maps on a terminal"],
)
def test_an_import_loads_nothing_heavy(modules: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {modules}; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    for name in heavy:
        assert f"'{name}'" not in done.stdout
