"""The points of a sweep, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from pipelines.experiment.sweep_points import SweepPlan, plan_sweep

FILE = "experiment: base\ndata: {path: .}\ndump: {layers: [2]}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(FILE)
    return path


def labels(plan: SweepPlan) -> list[str]:
    return [point.label for point in plan.points]


def test_every_combination_of_values_is_trained_with_every_seed(config: Path) -> None:
    plan = plan_sweep(config, vary=["rows=20,40", "rank=8"], seeds=2)
    assert labels(plan) == [
        "rows=20 rank=8 seed=0",
        "rows=20 rank=8 seed=1",
        "rows=40 rank=8 seed=0",
        "rows=40 rank=8 seed=1",
    ]
    last = plan.points[-1].experiment
    assert (last.train.max_rows, last.train.lora.rank, last.train.seed) == (40, 8, 1)


def test_a_point_is_the_run_of_its_overrides_alone(config: Path) -> None:
    (point,) = plan_sweep(config, ["evaluate.seed=3"], vary=["train.lora.rank=4"]).points
    assert point.overrides[0] == "evaluate.seed=3"
    assert point.experiment.sweep is None
    assert point.name == "base_rank-4_seed-0"


def test_points_have_names_of_their_own_whatever_the_values(config: Path) -> None:
    mixtures = "mixture={control: 1},{control: 2.0}"
    plan = plan_sweep(config, vary=[mixtures, "model=./a,./A"], seeds=2)
    assert len({point.name for point in plan.points}) == 8


def test_the_files_section_is_taken_and_options_replace_it(config: Path) -> None:
    config.write_text(FILE + "sweep: {vary: {rank: [4, 8]}, seeds: 3}\n")
    assert len(plan_sweep(config).points) == 6
    assert labels(plan_sweep(config, vary=["epochs=1,2"], seeds=1)) == [
        "epochs=1 seed=0",
        "epochs=2 seed=0",
    ]


def test_seeds_begin_at_the_experiments_own(config: Path) -> None:
    plan = plan_sweep(config, ["train.seed=5"], vary=["rank=4"], seeds=2)
    assert [point.seed for point in plan.points] == [5, 6]


@pytest.mark.parametrize("own", [[], ["dump.layers=[0.5]"]], ids=["by number", "by depth"])
def test_read_layers_share_one_store(config: Path, own: list[str]) -> None:
    plan = plan_sweep(config, own, vary=["read_layer=1,2,3"])
    assert {point.experiment.dump.layers for point in plan.points} == {(1, 2, 3)}


@pytest.mark.parametrize("own", ["dump.layers=[14]", "dump.layers=[0.5]"])
def test_read_layers_by_depth_share_one_store(config: Path, own: str) -> None:
    plan = plan_sweep(config, [own], vary=["read_layer=0.25,0.5,0.75"])
    assert {point.experiment.dump.layers for point in plan.points} == {(0.25, 0.5, 0.75)}


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        ([], "sweep: got no axis, expected --vary"),
        (["rows"], "--vary rows: expected FIELD=a,b,c"),
        (["rows=4,4"], "rows: expected distinct values"),
        (["rows=4,8", "train.max_rows=2"], "expected each field once"),
        (["rows=4", "rows=8"], "got a field twice"),
        (["train.seed=1,2"], "train.seed cannot be varied"),
        (["runtime.threads=1,2"], "runtime.threads cannot be varied"),
        (["train.lora.rnak=1,2"], "did you mean train.lora.rank?"),
        (["rows=0,4"], "train.max_rows: got 0"),
        (["rows=[4"], "not valid YAML for an experiment"),
    ],
)
def test_a_wrong_axis_is_refused_in_one_line(config: Path, vary: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(config, vary=vary)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "vary", "words"),
    [
        ("", ["train.lora.rnak=1"], "--vary train.lora.rnak=1: unknown field train.lora.rnak"),
        ("", ["rank=0"], "--vary train.lora.rank=0: "),
        ("", ["rank.x=1"], "--vary rank.x=1: unknown field rank"),
        ("sweep: {vary: {rank: [0]}}\n", [], "sweep.vary train.lora.rank=0: "),
    ],
)
def test_a_wrong_value_of_an_axis_is_told_as_what_the_user_wrote(
    section: str, vary: list[str], words: str, config: Path
) -> None:
    config.write_text(FILE + section)
    with pytest.raises(ConfigError) as caught:
        plan_sweep(config, vary=vary)
    assert str(caught.value).startswith(words)
