"""The step `robustness` on the tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chain
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from activation_store.tokens.tokens import COMPLETION_IDS
from core.errors import DataError
from core.records.estimate import Estimate
from core.records.tables import Message, View
from decoder.model import Decoder
from decoder.sources.target_run import capture, capture_rows
from evaluators.measure.result_files import RESULTS_FILE, ROBUSTNESS_FILE
from evaluators.robustness import alterations
from evaluators.robustness.alterations import ALTERATIONS, keep_unaltered
from evaluators.robustness.config import RobustnessConfig
from evaluators.robustness.decoy_answers import (
    estimate_own_answers,
    find_rival_answers,
    score_choices,
)
from evaluators.robustness.held_out import compare_held_out
from evaluators.robustness.robustness import robustness
from evaluators.robustness.target_finetune import FineTune
from trainers.data.rows import Row

VIEWS: tuple[View, ...] = ("control", "system")
CONFIG = RobustnessConfig(
    views=VIEWS, strengths=(0.5, 2.0), shift_steps=2, shift_rank=2, bootstrap=200, max_controls=9
)
LEAF = {"estimate", "low", "high", "n"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(VIEWS, {"train": 4, "test": 12, "test_ood": 9})
    return chain.make(tmp_path_factory.mktemp("chain"), rows)


@pytest.fixture(scope="module")
def decoder(made: chain.Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    chain.decoder(made, nudge=0.2).save(folder)
    return folder


def run(
    made: chain.Chain, decoder: Path, folder: Path, config: RobustnessConfig = CONFIG
) -> dict[str, Any]:
    inputs, out, work = made.places(folder)
    found = robustness(inputs, decoder, out, work, config=config, runtime=chain.RUNTIME)
    return found.to_json()


@pytest.fixture(scope="module")
def found(
    made: chain.Chain, decoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    tree = run(made, decoder, folder)
    assert json.loads((folder / "out" / ROBUSTNESS_FILE).read_bytes()) == tree
    _check_rows(tree, pq.read_table(folder / "out" / RESULTS_FILE).to_pylist())
    again = run(made, decoder, folder)
    assert again == tree
    return tree


def _check_rows(tree: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every number of the tree is a row, and those of a fine-tune are called foreign."""
    by_name = {(row["split"], row["view"], row["metric"]): row for row in rows}
    assert len(by_name) == len(rows)
    for view in VIEWS:
        shifted = by_name["test", view, "shift:2.right.drop"]
        own = tree["views"]["test"][view]["shift:2"]
        assert shifted["estimate"] == own["right"]["drop"]["estimate"]
        assert by_name["test", view, "shift:2.moved"]["estimate"] == own["moved"]
        assert shifted["foreign_target"] is True
        assert by_name["test", view, "decoy.none_minus_right.altered"]["foreign_target"] is False
        assert ("test_ood", view, "held_out.right.drop") in by_name


def test_every_change_has_drops_with_their_intervals(found: dict[str, Any]) -> None:
    assert {split: set(own) for split, own in found["views"].items()} == {
        "test": set(VIEWS),
        "test_ood": set(VIEWS),
    }
    for own in (change for views in found["views"].values() for change in views.values()):
        assert set(own) == {"decoy", "forbidden", "novel_question", "shift:0.5", "shift:2"}
        for change in own.values():
            for measure in (change["right"], change["none_minus_right"]):
                assert set(measure) == {"plain", "altered", "drop"}
                assert all(set(leaf) == LEAF for leaf in measure.values())
            right = change["right"]
            drop = right["altered"]["estimate"] - right["plain"]["estimate"]
            assert right["drop"]["estimate"] == pytest.approx(drop)
            assert right["drop"]["low"] <= right["drop"]["estimate"] <= right["drop"]["high"]


def test_a_decoy_says_whose_answer_is_likelier(found: dict[str, Any]) -> None:
    own = found["views"]["test"]["control"]["decoy"]["own_answer"]
    assert 0 <= own["plain"]["estimate"] <= 1
    assert own["drop"]["estimate"] == pytest.approx(
        own["plain"]["estimate"] - own["altered"]["estimate"]
    )


def test_a_stronger_fine_tune_moves_activations_further(found: dict[str, Any]) -> None:
    own = found["views"]["test"]["control"]
    assert 0 < own["shift:0.5"]["moved"] < own["shift:2"]["moved"]
    assert len(found["fine_tune"]["losses"]) == 2


def test_held_out_categories_are_compared_with_the_others(found: dict[str, Any]) -> None:
    right = found["held_out"]["control"]["right"]
    drop = right["test_ood"]["estimate"] - right["test"]["estimate"]
    assert right["drop"]["estimate"] == pytest.approx(drop)
    assert right["drop"]["low"] < drop < right["drop"]["high"]


def test_what_changes_nothing_costs_nothing(
    made: chain.Chain, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        alterations.ALTERATIONS, "decoy", lambda row, other, seed: keep_unaltered(row)
    )
    config = RobustnessConfig(
        splits=("test",), views=("control",), alterations=("decoy",), bootstrap=100
    )
    change = run(made, decoder, tmp_path, config)["views"]["test"]["control"]["decoy"]
    for leaf in (
        change["right"]["drop"],
        change["none_minus_right"]["drop"],
        change["own_answer"]["drop"],
    ):
        assert leaf["estimate"] == leaf["low"] == leaf["high"] == 0


def test_no_row_is_one_line(made: chain.Chain, decoder: Path, tmp_path: Path) -> None:
    config = RobustnessConfig(views=("stimulus",))
    with pytest.raises(DataError, match=r"no row in splits test, test_ood and views stimulus"):
        run(made, decoder, tmp_path, config)


def row(number: int, view: Any = "system") -> Row:
    conversation, questions = chain.row(number, view=view)
    return Row(conversation, tuple(questions))


def test_alterations() -> None:
    own, other = row(0), row(1)
    said = {name: alter(own, other, 0) for name, alter in ALTERATIONS.items()}
    decoy = [m.content for m in said["decoy"].messages]
    assert decoy[0] == own.conversation.control
    assert other.conversation.control in decoy[1]
    assert own.conversation.messages[1].content in decoy[1]
    forbidden = [m.content for m in said["forbidden"].messages]
    assert forbidden[0].startswith(own.conversation.control + " ")
    assert forbidden[1] == own.conversation.messages[1].content
    novel = said["novel_question"]
    assert novel.messages == own.conversation.messages
    for asked, question in zip(novel.questions, own.questions, strict=True):
        assert question.question in asked
        assert question.question != asked
    words = {ALTERATIONS["decoy"](own, other, seed).messages[1].content for seed in range(20)}
    assert len(words) == 3


def test_rivals_are_answers_to_the_same_question_that_differ() -> None:
    own, other = row(0), row(1)
    assert find_rival_answers(own, other) == [("Which?", "red", "blue")]
    (asked,) = other.questions[:1]
    elsewhere = replace(other, questions=(replace(asked, question="Why?"), asked))
    assert find_rival_answers(own, elsewhere) == [("Which?", "red", "blue")]
    assert find_rival_answers(own, replace(other, questions=elsewhere.questions[:1])) == []
    same = replace(asked, question="which", answer="Red.")
    assert find_rival_answers(own, replace(other, questions=(same,))) == []


def test_a_row_that_its_decoy_makes_too_long_has_no_choice(
    made: chain.Chain, decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Decoder.load(decoder, made.model, "float32", chain.RUNTIME)
    own, other = row(0), row(1)
    plain, decoy = keep_unaltered(own), ALTERATIONS["decoy"](own, other, 0)
    (length,) = (len(run.tokens.ids) for run in capture_rows(reader, [plain.conversation], [2]))
    shape = replace(reader.shape, max_positions=length)
    monkeypatch.setattr(Decoder, "shape", shape)
    pairs = [find_rival_answers(own, other)]
    scores = [score_choices(reader, [own], [x], pairs, masking=True) for x in (plain, decoy)]
    assert [len(of_row) for (of_row,) in scores] == [1, 0]


def test_own_answers_are_a_share() -> None:
    found = estimate_own_answers(
        [[1.0, 0.5], [], [1.0]], [[0.0, 0.5], [1.0], [1.0]], ["a", "b", "c"], CONFIG
    )
    assert found is not None
    assert found.plain.estimate == pytest.approx(0.875)
    assert found.altered.estimate == pytest.approx(0.625)
    assert estimate_own_answers([[]], [[1.0]], ["a"], CONFIG) is None


def test_a_split_with_few_controls_has_no_interval_of_its_drop() -> None:
    losses = {
        ("test", "control"): {"right": np.ones(9), "none": np.full(9, 3.0)},
        ("test_ood", "control"): {"right": np.full(3, 2.0), "none": np.full(3, 3.0)},
        ("test", "system"): {"right": np.ones(9), "none": np.ones(9)},
    }
    found = compare_held_out(losses, CONFIG)
    assert set(found) == {"control"}
    assert found["control"].right.drop == Estimate(estimate=1.0, n=3)
    assert found["control"].none_minus_right.drop.estimate == 1.0


def test_a_fine_tune_leaves_the_decoder_as_it_was(made: chain.Chain, decoder: Path) -> None:
    reader = Decoder.load(decoder, made.model, "float32", chain.RUNTIME)
    before = {name: values.clone() for name, values in reader.net.named_parameters()}
    said = [row(0).conversation.messages]
    (plain_run,) = capture(reader, said, [2])
    tuned = FineTune(reader, [plain_run.tokens.ids], CONFIG)
    with tuned.at(1.0) as source:
        (moved,) = capture(reader, said, [2], source=source)
    assert not np.allclose(moved.vectors[2], plain_run.vectors[2])
    (after,) = capture(reader, said, [2])
    np.testing.assert_array_equal(after.vectors[2], plain_run.vectors[2])
    tuned.remove()
    found = dict(reader.net.named_parameters())
    assert found.keys() == before.keys()
    assert all(torch.equal(before[name], values) for name, values in found.items())
    assert not any(values.requires_grad for values in found.values())


def test_an_altered_row_keeps_the_tokens_that_the_target_wrote(
    made: chain.Chain, decoder: Path
) -> None:
    reader = Decoder.load(decoder, made.model, "float32", chain.RUNTIME)
    own = row(0, "stimulus").conversation
    reply = Message(role="assistant", content="Fine.", segment="completion")
    spelled = [*map(int, reader.tokenizer.encode("Fi", add_special_tokens=False)), 2]
    written = replace(
        own,
        view="stimulus_completion",
        messages=(*own.messages, reply),
        provenance={COMPLETION_IDS: spelled},
    )
    altered = ALTERATIONS["decoy"](Row(written, row(0).questions), row(1), 0)
    assert altered.messages != written.messages
    (run_on,) = capture_rows(reader, [altered.conversation], [2])
    assert run_on.tokens.ids[-len(spelled) :].tolist() == spelled
