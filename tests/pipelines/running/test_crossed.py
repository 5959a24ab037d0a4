"""Decoders of several experiments on each other's rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fake_steps import FakeSteps, experiment, runner

from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import load_experiment
from pipelines.running.crossed import crossed, crossed_table
from pipelines.running.runner import Runner

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


def runners(folder: Path, log: str) -> dict[str, Runner]:
    steps = FakeSteps(folder / log)
    limits = {"few": 2, "many": 9}
    return {
        name: runner(folder / "root", steps, data={"path": ".", "limit": limit})
        for name, limit in limits.items()
    }


def test_each_decoder_meets_the_rows_of_all(tmp_path: Path) -> None:
    made = runners(tmp_path, "log")
    found = crossed(made)
    assert set(found) == {(a, b) for a in made for b in made}
    evaluations = made["few"].root.artifacts("evaluate")
    inputs = [one.identity["inputs"] for one in evaluations]
    assert len({(one["train"]["key"], one["questions"]["key"]) for one in inputs}) == 4


def test_the_table_puts_decoders_of_one_data_set_below_each_other(tmp_path: Path) -> None:
    head, _, *lines = crossed_table(crossed(runners(tmp_path, "log"))).splitlines()
    assert head.startswith("| trained on | tested on | split | view | n | right |")
    pairs = [tuple(line.strip("| ").split(" | ")[:2]) for line in lines]
    assert pairs == [("few", "few"), ("many", "few"), ("few", "many"), ("many", "many")]
    assert "| 9 | 1.00 [0.50, 1.50] |" in lines[0]


def test_what_was_crossed_once_is_found_again(tmp_path: Path) -> None:
    first = crossed(runners(tmp_path, "log"))
    again = runners(tmp_path, "again")
    assert crossed(again) == first
    assert not (tmp_path / "again").exists()


def test_each_runner_is_its_own_experiment_afterwards(tmp_path: Path) -> None:
    made = runners(tmp_path, "log")
    crossed(made)
    for one in made.values():
        assert one.runs["evaluate"].artifact.key == one.identity(one.steps[4]).key


def test_what_measures_a_decoder_by_itself_is_not_crossed(tmp_path: Path) -> None:
    *earlier, report = FakeSteps(tmp_path / "log").table()
    tasks = replace(earlier[3], name="tasks", inputs={"train": "train"})
    table = (*earlier, tasks, replace(report, inputs={**report.inputs, "tasks": "tasks"}))
    root = ArtifactRoot(tmp_path / "root")
    made = {
        name: Runner(experiment(data={"path": ".", "limit": limit}), root, steps=table)
        for name, limit in {"few": 2, "many": 9}.items()
    }
    assert len(crossed(made)) == 4
    assert len(root.artifacts("tasks")) == 2
    assert len(root.artifacts("report")) == 4


def test_the_experiments_train_on_as_many_questions_in_as_many_steps() -> None:
    generated = load_experiment(EXPERIMENTS / "quickstart.yaml").train
    published = load_experiment(EXPERIMENTS / "published_equal.yaml").train
    assert published.rows_per_batch == 2 * generated.rows_per_batch
    assert published.views == generated.views
    same = {"views", "rows_per_batch", "max_rows", "validation_rows"}
    assert published.model_dump(exclude=same) == generated.model_dump(exclude=same)
