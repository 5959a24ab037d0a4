"""A decoder on a store that another target wrote: refused, or read and called so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chain
import pyarrow.parquet as pq
import pytest
import tiny

from activation_store.model_files.files import resolve_model
from activation_store.write.dump import dump
from core.errors import ConfigError, StoreError
from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate
from evaluators.measure.result_files import METRICS_FILE, RESULTS_FILE

CONFIG = EvaluateConfig(splits=("test",), views=("control",), answers=0, bootstrap=100)
ROWS = chain.rows_of(splits={"train": 4, "test": 6})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("own"), ROWS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("other"), ROWS, seed=1)


@pytest.fixture(scope="module")
def decoder(own: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    chain.decoder(own, nudge=0.2).save(folder)
    return folder


def judge(
    decoder: Path, own: chain.Chain, store: Path | None, folder: Path, *, foreign: bool = True
) -> dict[str, Any]:
    inputs, out, work = own.places(folder, store=store, capture=chain.CAPTURE)
    decoders = TrainedDecoders(decoder=decoder)
    return evaluate(
        inputs, decoders, out, work, config=CONFIG, runtime=chain.RUNTIME, foreign=foreign
    ).to_json()


def test_another_targets_store_is_refused_with_both_sides(
    own: chain.Chain, other: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"weights is .* in the store and .* in the model"):
        judge(decoder, own, other.store, tmp_path, foreign=False)


def test_a_foreign_store_is_read_and_every_result_says_so(
    own: chain.Chain, other: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    found = judge(decoder, own, other.store, tmp_path)
    case = found["reading"]["test"]["control"]
    assert case["foreign_target"] is True
    assert found["foreign_target"]["differs"] == ["weights"]
    sides = [found["foreign_target"][side]["digests"] for side in ("decoder", "store")]
    assert sides == [own.model.digests(), other.model.digests()]
    assert json.loads((tmp_path / "out" / METRICS_FILE).read_text()) == found
    rows = pq.read_table(tmp_path / "out" / RESULTS_FILE).to_pylist()
    assert {row["foreign_target"] for row in rows} == {True}
    assert str(own.model.source) not in json.dumps(found)


def test_what_is_read_are_the_other_targets_activations(
    own: chain.Chain, other: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "foreign").mkdir()
    plain = judge(decoder, own, own.store, tmp_path / "own")["reading"]["test"]["control"]
    shifted = judge(decoder, own, other.store, tmp_path / "foreign")["reading"]["test"]["control"]
    losses = [case["answer_loss"] for case in (plain, shifted)]
    assert losses[0]["none"] == losses[1]["none"]  # nothing of the target in it
    for condition in ("right", "other", "mean"):
        assert losses[0][condition] != losses[1][condition]


def test_the_decoders_own_store_is_not_called_foreign(
    own: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    found = judge(decoder, own, own.store, tmp_path)
    assert set(found) == {"reading"}
    assert "foreign_target" not in found["reading"]["test"]["control"]
    rows = pq.read_table(tmp_path / "out" / RESULTS_FILE).to_pylist()
    assert {row["foreign_target"] for row in rows} == {False}


def test_a_store_of_another_width_is_refused(
    own: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    wide = resolve_model(str(tiny.save(tmp_path / "wide", hidden_size=64)))
    (tmp_path / "store").mkdir()
    dump(
        own.conversations,
        tmp_path / "store",
        config=chain.CAPTURE,
        model=wide,
        runtime=chain.RUNTIME,
    )
    with pytest.raises(StoreError, match="are 64 wide, the decoder expects 32"):
        judge(decoder, own, tmp_path / "store", tmp_path)


def test_without_a_store_there_is_no_foreign_target(
    own: chain.Chain, decoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is read from its store"):
        judge(decoder, own, None, tmp_path)
