"""Feature extraction on a target whose blocks write a known feature, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reading_model
import tiny
import torch
from reading_model import LAYER, OBJECTS, SUBJECTS, object_of

from core.records.estimate import Estimate
from core.records.tables import Split
from decoder.model import Decoder
from decoder.patched_text import PLACE, PatchedText, continue_texts, score_continuations
from evaluators.tasks import relation_task
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.measure import PredictorAnswers, measure_task
from evaluators.tasks.metrics import TaskMetrics
from evaluators.tasks.predictors import PREDICTORS
from evaluators.tasks.predictors.probe import fit_probe
from evaluators.tasks.relation_task import (
    KnownSubjects,
    build_relation_task,
    divide_subjects,
    find_known,
)
from evaluators.tasks.rows import TaskData, TaskRow
from generators.kinds.relation_files import Relation, read_relation

LAYERS = (0, 1, 2, 3)
CONFIG = TasksConfig.model_validate(
    {"min_subjects": 4, "shares": {"train": 0.3, "validation": 0.2}, "bootstrap": 200}
)
READING = ("lit", "probe", "neighbour", "patchscope", "selfie")
"""Methods that see activations."""


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.set_num_threads(1)
    return reading_model.decoder()


@pytest.fixture(scope="module")
def relation(tmp_path_factory: pytest.TempPathFactory) -> Relation:
    path = tmp_path_factory.mktemp("relations") / "number.json"
    return read_relation(reading_model.write_relation(path))


@pytest.fixture(scope="module")
def data(decoder: Decoder, relation: Relation) -> TaskData:
    return build_relation_task(decoder, relation, CONFIG, LAYERS)


_RUNS: dict[tuple[int, str], PredictorAnswers] = {}


def run(decoder: Decoder, data: TaskData, name: str) -> PredictorAnswers:
    """Run a predictor, once for a task."""
    if (id(data), name) not in _RUNS:
        _RUNS[id(data), name] = reading_model.run(decoder, data, PREDICTORS[name])
    return _RUNS[id(data), name]


def share(found: Estimate | None) -> float:
    assert found is not None
    assert found.estimate is not None
    return found.estimate


def measure(decoder: Decoder, data: TaskData, *names: str) -> TaskMetrics:
    return measure_task(data, {name: run(decoder, data, name) for name in names}, CONFIG)


def test_no_subject_of_the_test_is_in_training(data: TaskData) -> None:
    parts = [{row.group for row in part} for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(SUBJECTS)


def test_a_grown_file_moves_no_subject(relation: Relation) -> None:
    fewer = replace(relation, subjects=relation.subjects[::2])
    whole, half = divide_subjects(relation, CONFIG), divide_subjects(fewer, CONFIG)
    assert {one.name for one in half.test} <= {one.name for one in whole.test}
    assert {one.name for one in half.train} <= {one.name for one in whole.train}


def test_subjects_that_the_decoder_was_trained_on_are_not_tested(
    decoder: Decoder, relation: Relation
) -> None:
    first, second, *_ = divide_subjects(relation, CONFIG).test
    splits: dict[str, Split] = {first.label: "train", second.label: "validation"}
    found = build_relation_task(decoder, relation, CONFIG, LAYERS, splits=splits)
    assert first.key in {row.group for row in found.train}
    assert second.key in {row.group for row in found.validation}
    everyone: dict[str, Split] = {one.label: "train" for one in relation.subjects}
    assert divide_subjects(relation, CONFIG, everyone).test == ()


def test_no_more_subjects_are_asked_or_learnt_from_than_allowed(
    decoder: Decoder, relation: Relation
) -> None:
    few = CONFIG.model_copy(update={"max_asked": 5, "train_subjects": 3})
    found = build_relation_task(decoder, relation, few, LAYERS)
    assert (found.counts["test_asked"], len({row.group for row in found.train})) == (5, 3)


def test_only_subjects_that_the_target_knows_are_tested(
    decoder: Decoder, relation: Relation, tmp_path: Path
) -> None:
    first, second, *_ = divide_subjects(relation, CONFIG).test
    wrong = {one.name: OBJECTS[OBJECTS.index(object_of(one.name)) - 1] for one in (first, second)}
    own = read_relation(reading_model.write_relation(tmp_path / "number.json", **wrong))
    found = build_relation_task(decoder, own, CONFIG, LAYERS)
    assert found.counts["test_asked"] - found.counts["test_known"] == 2
    assert not {first.key, second.key} & {row.group for row in found.test}


def test_too_few_subjects_are_not_measured_and_it_says_so(
    decoder: Decoder, relation: Relation
) -> None:
    found = build_relation_task(decoder, relation, TasksConfig(), LAYERS)
    assert found.test == ()
    assert found.why_not is not None
    assert "tasks.min_subjects requires 30" in found.why_not


def test_where_enough_cannot_be_had_nobody_is_asked(decoder: Decoder, relation: Relation) -> None:
    subjects = relation.subjects[:5]
    assert find_known(decoder, subjects, most=9, tokens=8, least=6) == KnownSubjects([], 0)
    found = find_known(decoder, subjects, most=3, tokens=8, least=2)
    assert (len(found.subjects), found.asked) == (3, 3)


def test_where_one_is_needed_few_are_asked_at_once(
    decoder: Decoder, relation: Relation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def write(decoder: Decoder, injection: Any, texts: list[PatchedText], **more: Any) -> Any:
        sizes.append(len(texts))
        return continue_texts(decoder, injection, texts, **more)

    monkeypatch.setattr(relation_task, "continue_texts", write)
    assert len(relation.subjects) > 8
    assert len(find_known(decoder, relation.subjects, most=1, tokens=8).subjects) == 1
    assert sizes[0] == max(sizes) == 8


def test_no_more_subjects_are_tested_than_asked_for(decoder: Decoder, relation: Relation) -> None:
    few = CONFIG.model_copy(update={"max_subjects": 5})
    assert len(build_relation_task(decoder, relation, few, LAYERS).test) == 5


def test_activations_are_those_of_the_subjects_last_token(decoder: Decoder, data: TaskData) -> None:
    row = data.test[0]
    ids = decoder.tokenizer(f"we saw {row.group.upper()}")["input_ids"]
    with decoder.without_adapter(), torch.no_grad():
        states = decoder.net(torch.tensor([ids]), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(row.last(LAYER), states[LAYER + 1][0, -1].numpy(), rtol=1e-5)
    assert (row.position, row.token_ids.tolist()) == (len(ids) - 1, ids[-1:])


@pytest.mark.parametrize("name", READING)
def test_each_method_reads_the_feature_and_only_the_feature(
    decoder: Decoder, data: TaskData, name: str
) -> None:
    """Three of ten rows get the activations of a row with another object: 7 of 10 are right."""
    rows = list(data.test)
    assert len(rows) == 10
    given = rows.copy()
    for i in (0, 1, 3):
        other = next(row for row in rows if row.answer != rows[i].answer)
        given[i] = replace(rows[i], vectors=other.vectors)
    given_data = replace(data, test=tuple(given))
    answers = {name: reading_model.run(decoder, given_data, PREDICTORS[name])}
    found = measure_task(given_data, answers, CONFIG).predictors[name]
    assert share(found.contained) == pytest.approx(0.7)
    assert share(found.exact) == pytest.approx(0.7)


@pytest.mark.parametrize("name", [*READING, "asking"])
def test_all_is_read_where_all_is_there(decoder: Decoder, data: TaskData, name: str) -> None:
    found = measure(decoder, data, name).predictors[name]
    assert share(found.contained) == 1.0
    assert share(found.chosen) == 1.0


def test_before_the_block_that_writes_it_a_probe_finds_nothing(
    decoder: Decoder, data: TaskData
) -> None:
    found = measure(decoder, data, "probe").predictors["probe"]
    # subjects of the test are new to it, so it says one object for all
    most = max(sum(row.answer == digit for row in data.test) for digit in OBJECTS)
    assert (found.by_layer["0"].estimate or 0) <= most / len(data.test)
    assert found.by_layer["1"].estimate == 1.0


def test_without_activations_the_choice_is_one_in_four(decoder: Decoder, data: TaskData) -> None:
    found = measure(decoder, data, "lit", "none")
    assert found.choices >= 4
    assert found.predictors["none"].chosen.estimate == pytest.approx(0.25)
    assert share(found.predictors["none"].contained) == 0.0
    lead = found.predictors["none"].lead
    assert lead is not None
    assert lead.estimate == 1.0


def test_every_method_has_at_least_as_many_tries_as_lit(decoder: Decoder, data: TaskData) -> None:
    tried = {name: len(run(decoder, data, name).tries) for name in READING}
    assert min(tried, key=lambda name: tried[name]) == "lit"


def test_the_setting_is_the_best_of_validation(decoder: Decoder, data: TaskData) -> None:
    found = run(decoder, data, "probe")
    shares = {repr(setting): share for setting, share in found.tries}
    assert shares[repr(found.setting)] == max(shares.values())


def test_a_probe_of_shuffled_labels_is_at_chance() -> None:
    draw = np.random.default_rng(0)
    rows = [_random_row(draw, OBJECTS[i % 4]) for i in range(400)]
    train, test = rows[:200], rows[200:]

    def accuracy(train: list[TaskRow]) -> float:
        said = fit_probe(train, 0, 0.1).predict(np.stack([row.last(0) for row in test]))
        return float(np.mean([a == row.answer for a, row in zip(said, test, strict=True)]))

    def shuffled() -> list[TaskRow]:
        order = draw.permutation(len(train))
        return [replace(row, answers=train[i].answers) for row, i in zip(train, order, strict=True)]

    assert accuracy(train) > 0.95
    assert abs(np.mean([accuracy(shuffled()) for _ in range(20)]) - 0.25) < 0.06


def _random_row(draw: np.random.Generator, answer: str) -> TaskRow:
    vector = draw.normal(size=(1, 16)).astype(np.float32)
    vector[0, OBJECTS.index(answer)] += 5
    return TaskRow(
        row_id="r",
        group="g",
        vectors={0: vector},
        token_ids=np.zeros(1, np.int64),
        position=0,
        answers=(answer,),
        questions=("q",),
        patched=(),
        plain=(),
    )


def test_what_continues_a_text_is_what_the_model_says(decoder: Decoder) -> None:
    text = PatchedText.make(decoder.tokenizer, "the number of B")
    at = decoder.injection_at(0, "replace")
    (answer,) = continue_texts(decoder, at, [text], max_tokens=8)
    assert (answer.text, answer.finished) == (object_of("B"), True)
    ((right, wrong),) = score_continuations(decoder, at, [text], [[object_of("B"), "4"]])
    with decoder.without_adapter(), torch.no_grad():
        logits = decoder.net(torch.tensor(text.ids[None])).logits[0, -1].log_softmax(-1)
    ids = [decoder.tokenizer.convert_tokens_to_ids(one) for one in (object_of("B"), "4")]
    np.testing.assert_allclose([-right, -wrong], logits[ids].numpy(), atol=1e-4)


def test_a_text_of_one_token_is_continued(decoder: Decoder) -> None:
    text = PatchedText.make(decoder.tokenizer, "B")
    at = decoder.injection_at(0, "replace")
    (answer,) = continue_texts(decoder, at, [text], max_tokens=4)
    assert answer.text == object_of("B")


def test_an_activation_enters_at_each_placeholder(decoder: Decoder) -> None:
    vector = np.arange(336, dtype=np.float32)
    text = PatchedText.make(decoder.tokenizer, f"of {PLACE} is", vector, repeats=3)
    assert decoder.tokenizer.decode(text.ids) == "of xxx is"
    assert text.places.tolist() == [3, 4, 5]
    assert text.vectors is not None
    np.testing.assert_array_equal(text.vectors, np.stack([vector] * 3))


def test_a_placeholder_stands_as_its_letter_would() -> None:
    tokenizer = tiny.tokenizer(merges=True)
    vector = np.zeros(8, np.float32)
    text = PatchedText.make(tokenizer, f"note of {PLACE} is", vector)
    assert text.ids.tolist() == tokenizer("note of x is")["input_ids"]
    assert tokenizer.decode(text.ids[text.places]) == " x"


@pytest.mark.parametrize("text", ["no mark", f"ends with {PLACE}"])
def test_a_vector_needs_a_place_with_text_behind_it(decoder: Decoder, text: str) -> None:
    with pytest.raises(ValueError, match="a patched text needs"):
        PatchedText.make(decoder.tokenizer, text, np.zeros(336, np.float32))
