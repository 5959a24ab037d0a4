"""Another model's activations, through a linear map and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reading_model
import torch
from pydantic import ValidationError
from reading_model import LAYER

from activation_store.model_files.files import ModelFiles
from core.runtime import Runtime
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from evaluators.tasks import tasks
from evaluators.tasks.config import ShiftConfig, TasksConfig
from evaluators.tasks.linear_map import LinearMap, TextActivations, pair_tokens, read_texts
from evaluators.tasks.measure import measure_task
from evaluators.tasks.predictors.decoder_predictor import LIT
from evaluators.tasks.relation_task import build_relation_task
from evaluators.tasks.rows import TaskData
from evaluators.tasks.shift_task import matching_layer, shift_tasks
from generators.kinds.relation_files import read_relation

CONFIG = TasksConfig.model_validate(
    {"min_subjects": 4, "shares": {"train": 0.4, "validation": 0.2}, "bootstrap": 200}
)
SHIFT = ShiftConfig(model="other")


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.set_num_threads(1)
    return reading_model.decoder()


@pytest.fixture(scope="module")
def other(decoder: Decoder) -> TargetNetwork:
    return TargetNetwork(reading_model.turned_network(), decoder.tokenizer)


@pytest.fixture(scope="module")
def shifted(
    decoder: Decoder, other: TargetNetwork, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TaskData]:
    path: Path = tmp_path_factory.mktemp("relations") / "number.json"
    relation = read_relation(reading_model.write_relation(path))
    data = build_relation_task(decoder, relation, CONFIG, (LAYER,))
    return {one.name: one for one in shift_tasks(data, decoder, other, SHIFT)}


def lit_share(decoder: Decoder, data: TaskData) -> float:
    answers = {"lit": reading_model.run(decoder, data, LIT)}
    found = measure_task(data, answers, CONFIG).predictors["lit"].contained
    assert found is not None
    assert found.estimate is not None
    return found.estimate


def test_a_map_makes_another_models_activations_readable(
    decoder: Decoder, shifted: dict[str, TaskData]
) -> None:
    assert list(shifted) == ["number_shift_mapped", "number_shift_raw"]
    assert lit_share(decoder, shifted["number_shift_mapped"]) == 1.0
    assert lit_share(decoder, shifted["number_shift_raw"]) <= 0.5


def test_the_error_of_the_map_stands_beside(shifted: dict[str, TaskData]) -> None:
    facts = shifted["number_shift_mapped"].facts
    assert 0 < facts["map_error"] < 1
    assert facts["map_pairs"] == sum(
        len(row.text) for row in shifted["number_shift_mapped"].train
    )  # a token is a byte


def test_training_rows_stay_those_of_the_decoders_target(
    decoder: Decoder, shifted: dict[str, TaskData]
) -> None:
    raw = shifted["number_shift_raw"]
    own = TargetNetwork(reading_model.network(), decoder.tokenizer)
    (row,) = raw.train[:1]
    (found,) = read_texts(own, [row.text], LAYER)
    np.testing.assert_allclose(row.last(LAYER), found.vectors[-1], atol=1e-5)


def test_a_linear_relation_is_found_and_an_unrelated_one_has_an_error() -> None:
    draw = np.random.default_rng(0)
    source, weights = draw.normal(size=(500, 8)), draw.normal(size=(8, 6))
    found = LinearMap(source[:400], source[:400] @ weights, (source[400:], source[400:] @ weights))
    assert found.error < 1e-4
    np.testing.assert_allclose(found(source[:3]), source[:3] @ weights, atol=0.1)
    noise = draw.normal(size=(500, 6))
    assert LinearMap(source[:400], noise[:400], (source[400:], noise[400:])).error > 0.9


def test_tokens_are_paired_where_both_models_end_one() -> None:
    def texts(*stops: int) -> list[TextActivations]:
        return [TextActivations(np.array([[float(stop)] for stop in stops]), np.array(stops))]

    mine, theirs = pair_tokens(texts(1, 4, 9), texts(2, 4, 7, 9))
    assert mine.tolist() == theirs.tolist() == [[4.0], [9.0]]


def test_the_other_model_is_spread_where_the_runtime_says_so(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def load(model: ModelFiles, **how: Any) -> Any:
        given.update(how)
        return reading_model.network()

    monkeypatch.setattr(tasks, "load_model", load)
    files = reading_model.model()
    inputs = tasks.TaskInputs(model=files, decoder=Path(), other=files)
    tasks._load_other(inputs, decoder, Runtime(spread=True))
    assert (given["runtime"].spread, given["device"]) == (True, decoder.device)


def test_the_block_of_the_same_depth_is_read(decoder: Decoder, other: TargetNetwork) -> None:
    assert matching_layer(decoder, other, SHIFT) == LAYER
    assert matching_layer(decoder, other, ShiftConfig(model="other", layer=1)) == 1


def test_a_shift_needs_another_model() -> None:
    with pytest.raises(ValidationError, match="expected a model, an adapter, or both"):
        ShiftConfig()
