"""Evaluating decoders that read several layers, and without a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chain
import pytest

from core.errors import ConfigError
from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate

CONFIG = EvaluateConfig(
    splits=("test",),
    views=("control", "system"),
    conditions=("right", "other", "mean", "noise", "wrong_layer"),
    bootstrap=100,
    max_controls=4,
    min_controls=2,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(("control", "system"), {"train": 3, "test": 5})
    return chain.make(tmp_path_factory.mktemp("chain"), rows, layers=(0, chain.LAYER))


def judge(made: chain.Chain, folder: Path, *, live: bool = False, **given: Any) -> dict[str, Any]:
    """Measure split test with an untrained decoder with its adapter moved."""
    config = CONFIG.model_copy(update=given.pop("config", {}))
    capture = chain.CAPTURE.model_copy(update={"layers": (0, chain.LAYER)})
    changes = {"store": None, "capture": capture} if live else {}
    inputs, out, work = made.places(folder, **changes)
    chain.decoder(made, nudge=0.2, **given).save(folder / "decoder")
    found = evaluate(
        inputs,
        TrainedDecoders(decoder=folder / "decoder"),
        out,
        work,
        config=config,
        runtime=chain.RUNTIME,
    )
    return dict(found.to_json()["reading"]["test"])


def losses(found: dict[str, Any], view: str = "control") -> dict[str, float]:
    return {name: leaf["estimate"] for name, leaf in found[view]["answer_loss"].items()}


def test_without_a_store_the_losses_are_the_same(made: chain.Chain, tmp_path: Path) -> None:
    stored = judge(made, tmp_path / "a", read_layer=chain.LAYER)
    live = judge(made, tmp_path / "b", read_layer=chain.LAYER, live=True)
    for view in CONFIG.views:
        assert losses(live, view) == pytest.approx(losses(stored, view), rel=1e-4)


def test_layers_together_are_judged_but_for_the_wrong_layer(
    made: chain.Chain, tmp_path: Path
) -> None:
    found = judge(made, tmp_path, read_layers=(0, chain.LAYER), combine="concatenated")
    assert "reads layers [0, 2] together" in found["control"]["left_out"]["wrong_layer"]
    values = losses(found)
    assert set(values) == {"right", "other", "mean", "noise"}
    assert len({round(value, 4) for value in values.values()}) == 4


def test_a_sampled_layer_is_asked_for(made: chain.Chain, tmp_path: Path) -> None:
    layers = (chain.LAYER, 0)
    first = judge(made, tmp_path / "a", read_layers=layers)
    same = judge(made, tmp_path / "b", read_layers=layers, config={"read_layer": chain.LAYER})
    other = judge(made, tmp_path / "c", read_layers=layers, config={"read_layer": 0})
    assert losses(first) == losses(same)
    assert losses(first)["right"] != pytest.approx(losses(other)["right"], rel=1e-3)
    with pytest.raises(ConfigError, match="layer 1: the decoder reads"):
        judge(made, tmp_path / "d", read_layers=layers, config={"read_layer": 1})
