"""A smoke run is the user's own experiment, made small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_steps import experiment

from pipelines.experiment.smoke import smoke


def test_everything_that_costs_time_is_small() -> None:
    small = smoke(experiment())
    assert small.data is not None
    assert small.experiment == "fake-smoke"
    assert small.data.limit == 8
    assert (small.train.max_steps, small.train.evaluations) == (2, 1)
    assert (small.evaluate.max_controls, small.evaluate.answers) == (4, 1)
    assert small.evaluate.bootstrap == 200


def test_what_is_smaller_already_stays() -> None:
    small = smoke(experiment(data={"path": ".", "limit": 3}, evaluate={"answers": 0}))
    assert small.data is not None
    assert small.data.limit == 3
    assert small.evaluate.answers == 0


def test_all_else_is_the_users() -> None:
    own = experiment(dump={"layers": [3]}, train={"lora": {"rank": 2}})
    small = smoke(own)
    assert small.dump == own.dump
    assert small.train.lora == own.train.lora
    assert small.runtime == own.runtime


def test_a_check_of_the_rows_looks_at_few() -> None:
    small = smoke(experiment(quality={"passes": 3}))
    assert small.quality is not None
    assert (small.quality.sample, small.quality.passes) == (8, 3)
    assert smoke(experiment()).quality is None


def test_optional_steps_are_small_too() -> None:
    small = smoke(
        experiment(complete={"max_tokens": 200}, robustness={"shift_steps": 50, "strengths": [1.0]})
    )
    assert small.complete is not None
    assert small.complete.max_tokens == 16
    assert small.robustness is not None
    assert (small.robustness.max_controls, small.robustness.shift_steps) == (4, 2)
    assert small.robustness.strengths == (1.0,)


def test_reading_tasks_try_little_over_two_relations() -> None:
    small = smoke(experiment(tasks={"relations": ["packaged"], "layers": [2, 7, 9]}))
    assert small.tasks is not None
    assert [Path(file).name for file in small.tasks.relations] == [
        "animal_class.yaml",
        "city_country.yaml",
    ]
    assert small.tasks.layers == (2,)
    assert (small.tasks.max_asked, small.tasks.answer_tokens) == (16, 4)
    assert (small.tasks.max_subjects, small.tasks.validation_subjects) == (4, 1)


@pytest.mark.parametrize(
    ("stored", "decoder", "read"),
    [
        ([0.5], {}, 0.5),
        ([0.5, 3], {"read_layer": 3}, 3),
        ([3, 0.25], {"read_layers": [0.25, 3]}, 0.25),
    ],
)
def test_reading_tasks_read_the_decoders_own_block_where_none_is_named(
    stored: list[float], decoder: dict[str, Any], read: float
) -> None:
    own = experiment(dump={"layers": stored}, train={"decoder": decoder}, tasks={})
    small = smoke(own)
    assert small.tasks is not None
    assert small.tasks.layers == (read,)
