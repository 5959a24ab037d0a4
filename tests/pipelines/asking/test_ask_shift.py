"""Asking about activations that the decoder was not trained on, and saying so."""

from __future__ import annotations

import json
from pathlib import Path

import chain
import pytest
import tiny
from ask_calls import PROMPT, QUESTION, Called, make_root

from core.errors import ModelError
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.asking.load import load

WORDS = ("toy", "--prompt", PROMPT, "--question", QUESTION, "--device", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("shift"))


def test_a_foreign_target_is_read_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = chain.model(1).ref
    words = (*WORDS, "--max-tokens", "2", "--foreign-target", other)
    shown = Called(capsys, root, *words).out
    assert f"Foreign target {Path(other).name}: weights differs from" in shown
    found = json.loads(Called(capsys, root, *words, "--json").out)
    assert found["foreign_target"] == {
        "model": Path(other).name,
        "adapter": None,
        "differs": ["weights"],
    }
    own = json.loads(Called(capsys, root, *WORDS, "--max-tokens", "2", "--json").out)
    assert own["foreign_target"] is None
    assert own["ood"]["distance"] < found["ood"]["distance"]
    options = ("--answer", "red", "--json")
    mapped = json.loads(Called(capsys, root, *words, *options, command="map").out)
    assert mapped["foreign_target"] == found["foreign_target"]


def test_a_foreign_target_of_another_shape_is_one_line(root: Path, tmp_path: Path) -> None:
    wide = tiny.save(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ModelError, match=r"blocks of width 64, expected 4 of width 32"):
        load("toy", root=root, device="cpu", foreign_target=str(wide))


def test_activations_out_of_distribution_are_called_so(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = ("--tokens", "all", "--layer", "0", "--max-tokens", "1")
    shown = Called(capsys, root, *WORDS, *strange).out
    assert "Out of distribution: these activations lie farther" in shown
    found = json.loads(Called(capsys, root, *WORDS, *strange, "--json").out)["ood"]
    assert (found["out_of_distribution"], found["rows"]) == (True, 24)
    usual = Called(capsys, root, *WORDS, "--max-tokens", "1").out
    assert "Out of distribution" not in usual


def test_without_its_store_a_decoder_has_no_detector(root: Path) -> None:
    copied = Refs(ArtifactRoot(root)).resolve("toy", "train").data
    reader = load("toy", root=root, device="cpu")
    assert reader.ask_all(PROMPT, [QUESTION], max_tokens=1).ood is not None
    reader.find_ood_detector = lambda: None
    del reader.ood_detector
    assert reader.ask_all(PROMPT, [QUESTION], max_tokens=1).ood is None
    assert copied.is_dir()
