"""The trained baselines are steps of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from pipelines.experiment.config import load_experiment
from pipelines.steps.order import steps_for

QUICKSTART = Path(__file__).parents[3] / "experiments" / "quickstart.yaml"


def table(baselines: str) -> dict[str, Any]:
    experiment = load_experiment(QUICKSTART, [f"evaluate.baselines={baselines}"])
    return {
        step.name: (dict(step.inputs), step.config(experiment)) for step in steps_for(experiment)
    }


def test_there_are_none_where_none_are_asked_for() -> None:
    found = table("[]")
    assert "train" in found
    assert not {"train_prior", "train_text"} & found.keys()


def test_each_has_the_trainings_own_settings_and_a_variant() -> None:
    found = table("[prior, text]")
    assert list(found)[-5:] == ["train", "train_prior", "train_text", "evaluate", "report"]
    inputs, config = found["train"]
    for name in ("prior", "text"):
        assert found[f"train_{name}"] == (inputs, {**config, "variant": name})
    assert {"train", "train_prior", "train_text"} <= found["evaluate"][0].keys()


def test_the_training_itself_is_the_same_with_and_without() -> None:
    assert table("[prior]")["train"] == table("[]")["train"]


def test_layers_drawn_anew_in_each_pass_are_another_training() -> None:
    def drawn(*changes: str) -> bool:
        several = ["dump.layers=[7, 14]", "train.decoder.read_layer=null"]
        several += ["train.decoder.read_layers=[7, 14]", *changes]
        experiment = load_experiment(QUICKSTART, several)
        train = next(step for step in steps_for(experiment) if step.name == "train")
        return train.config(experiment).get("layers_drawn") == "each pass"

    assert drawn("train.max_steps=null", "train.epochs=2")
    assert drawn("train.max_steps=9")
    assert not drawn("train.max_steps=null", "train.epochs=1")
    assert not drawn("train.epochs=2", "train.decoder.combine=concatenated")
    assert "layers_drawn" not in table("[]")["train"][1]


def test_a_baseline_is_named_once() -> None:
    with pytest.raises(ConfigError, match="expected each baseline once"):
        load_experiment(QUICKSTART, ["evaluate.baselines=[prior, prior]"])
