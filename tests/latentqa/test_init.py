"""`latentqa init` and `schema`: an experiment file to begin with, and what editors know of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Called
from jsonschema import Draft202012Validator

from core.documents.yaml_values import parse_yaml
from latentqa.commands.experiments.init import SCHEMA_FILE, packaged_experiments, schema_text
from pipelines.experiment.config import load_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_init_writes_the_template_and_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "init")
    assert called.code == 0
    assert load_experiment(Path("experiment.yaml")).experiment == "experiment"
    assert json.loads(Path(SCHEMA_FILE).read_text())["properties"].keys() >= {"dump", "train"}
    assert "latentqa plan experiment.yaml" in called.out


def test_a_packaged_experiment_can_be_the_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(capsys, "init", "quickstart", "--json")
    assert called.json() == {
        "experiment": "quickstart",
        "out": "quickstart.yaml",
        "schema": SCHEMA_FILE,
    }
    assert Path("quickstart.yaml").read_text() == (EXPERIMENTS / "quickstart.yaml").read_text()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.yaml", "mine"),
        ("Pirates, 2nd try.yaml", "pirates-2nd-try"),
        ("x/_y_.yml", "y"),
        ("…", "mine"),
        (f"{'long' * 51}.yaml", "long" * 50),
    ],
)
def test_an_experiment_is_named_after_its_file(
    capsys: pytest.CaptureFixture[str], file: str, name: str
) -> None:
    for experiment in ("template", "quickstart"):
        out = Path(experiment, file)
        assert name in Called(capsys, "init", experiment, "--out", str(out)).out
        assert load_experiment(out).experiment == name
        original = (EXPERIMENTS / f"{experiment}.yaml").read_text().splitlines()
        changed = [
            pair
            for pair in zip(out.read_text().splitlines(), original, strict=True)
            if len(set(pair)) > 1
        ]
        assert [new.partition(" #")[0].split() for new, _ in changed] == [["experiment:", name]]


def test_init_overwrites_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiment.yaml").write_text("mine")
    assert "already exists; name a new file with --out" in Called(capsys, "init").refused()
    assert Path("experiment.yaml").read_text() == "mine"


def test_an_unknown_experiment_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected one of template, " in Called(capsys, "init", "nothing").refused()


def test_init_lists_the_packaged_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    names = [one["name"] for one in Called(capsys, "init", "--list", "--json").json()]
    assert sorted(names) == sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    assert "quickstart" in Called(capsys, "init", "--list").out
    assert not list(Path().iterdir())


def test_schema_is_printed_or_written(capsys: pytest.CaptureFixture[str]) -> None:
    printed = Called(capsys, "schema").json()
    assert Called(capsys, "schema", "--out", "s.json").code == 0
    assert json.loads(Path("s.json").read_text()) == printed


def test_a_folder_in_place_of_a_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").mkdir()
    refused = Called(capsys, "schema", "--out", "taken").refused()
    assert "latentqa: taken: Is a directory. Name another place." in refused


@pytest.mark.parametrize("name", list(packaged_experiments()))
def test_every_packaged_experiment_fits_the_schema_and_names_it(name: str) -> None:
    text = packaged_experiments()[name]
    assert text.startswith(f"# yaml-language-server: $schema={SCHEMA_FILE}\n")
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(parse_yaml(text, name))) == []


def test_the_schema_refuses_what_the_config_refuses() -> None:
    tree = {"experiment": "x", "data": {"path": "."}, "train": {"lora": {"rnak": 1}}}
    (error,) = Draft202012Validator(json.loads(schema_text())).iter_errors(tree)
    assert "rnak" in error.message


@pytest.mark.parametrize("name", list(packaged_experiments()))
def test_no_default_points_outside_the_checkout(name: str) -> None:
    assert "../" not in packaged_experiments()[name]
