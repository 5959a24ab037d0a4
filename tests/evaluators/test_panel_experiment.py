"""experiments/panel.yaml: the quickstart's rows, and everything that can be measured."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from evaluators.config import ConditionName
from pipelines.experiment.config import load_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PANEL = load_experiment(EXPERIMENTS / "panel.yaml")
QUICKSTART = load_experiment(EXPERIMENTS / "quickstart.yaml")
PUBLISHED = load_experiment(EXPERIMENTS / "latentqa_eval.yaml")


def test_its_rows_are_the_quickstarts() -> None:
    assert PANEL.generate == QUICKSTART.generate
    assert PANEL.complete == QUICKSTART.complete


def test_it_measures_everything() -> None:
    assert set(PANEL.evaluate.conditions) == set(get_args(ConditionName))
    assert PANEL.evaluate.identification >= 2
    assert PANEL.evaluate.answers >= PANEL.evaluate.min_controls
    assert len(PANEL.dump.layers) > 1


def test_what_costs_extra_is_off_elsewhere() -> None:
    for experiment in (QUICKSTART, PUBLISHED):
        assert {"noise", "wrong_layer"}.isdisjoint(experiment.evaluate.conditions)
