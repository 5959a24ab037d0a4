"""Identification: which answers stand beside gold, planted decoders, and a real pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chain
import numpy as np
import pytest

from activation_store.read.reader import ActivationStore
from core.records.tables import Conversation, Question
from evaluators.config import EvaluateConfig
from evaluators.identification.choice_items import ChoiceItem, make_items
from evaluators.identification.identify import (
    OptionLosses,
    measure_identification,
)
from evaluators.identification.option_losses import compute_option_losses
from evaluators.measure.conditions import CONDITIONS, EvalContext
from evaluators.measure.losses import compute_question_losses
from trainers.data.rows import Row, load_rows

CONFIG = EvaluateConfig(bootstrap=1000, identification=4)
CONTROLS = 24


def row(
    number: int,
    asked: list[tuple[str, str, str | None]],
    *,
    kind: str = "persona",
    category: str = "trades",
    group: str | None = None,
) -> Row:
    """Make a row with (question, answer, type) each."""
    conversation = Conversation(
        example_id=f"e{number}",
        control_id=f"c{number}",
        group_id=group or f"g{number}",
        kind=kind,
        category=category,
        label=f"label {number}",
        view="control",
        split="test",
        source="test",
        messages=(),
    )
    questions = [
        Question(example_id=f"e{number}", question=question, answer=answer, type=type_)
        for question, answer, type_ in asked
    ]
    return Row(conversation, tuple(questions))


def items_of(rows: list[Row], options: int = 4, seed: int = 0) -> tuple[list[ChoiceItem], int]:
    return make_items(rows, rows, options=options, seed=seed)


def test_distractors_are_answers_to_the_same_question() -> None:
    rows = [row(i, [("Who?", f"Number {i}.", "prediction")]) for i in range(9)]
    items, without = items_of(rows)
    assert (len(items), without) == (9, 0)
    for i, item in enumerate(items):
        assert item.options[0] == f"Number {i}."
        assert len(set(item.options)) == 4
    assert items_of(rows)[0] == items
    assert items_of(rows, seed=1)[0] != items


def test_a_row_has_the_same_items_whatever_rows_stand_beside_it() -> None:
    rows = [row(i, [("Who?", f"Number {i}.", "prediction")]) for i in range(9)]
    few, _ = make_items(rows[4:6], rows, options=4, seed=0)
    assert [item.options for item in few] == [item.options for item in items_of(rows)[0][4:6]]


@pytest.mark.parametrize(("controls", "asked"), [(3, 0), (4, 4)])
def test_a_question_that_too_few_controls_share_is_left_out_and_counted(
    controls: int, asked: int
) -> None:
    rows = [row(i, [("Who?", f"Number {i}.", "description")]) for i in range(controls)]
    items, left_out = items_of(rows, options=4)
    assert (len(items), left_out) == (asked, controls - asked)
    assert all(len(item.options) == 4 for item in items)


def test_answers_to_other_questions_are_no_distractors() -> None:
    rows = [row(i, [(f"Question {i}?", f"Number {i}.", None)]) for i in range(9)]
    assert items_of(rows) == ([], 9)


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([("A PIRATE", "g1")], id="the same answer in other words' form"),
        pytest.param([("A nurse.", "g0")], id="of the same group"),
    ],
)
def test_what_is_no_other_answer_is_no_distractor(others: list[tuple[str, str]]) -> None:
    rows = [row(0, [("Who?", "A pirate.", "description")], group="g0")]
    rows += [
        row(i, [("Who?", answer, "description")], group=group)
        for i, (answer, group) in enumerate(others, 1)
    ]
    items, without = make_items(rows[:1], rows, options=4, seed=0)
    assert (items, without) == ([], 1)


def planted(loss: Callable[[str, bool, float], float]) -> dict[str, Any]:
    """Identification of a decoder whose losses are a function of condition, gold and a draw."""
    draw = np.random.default_rng(0)
    question = Question(example_id="e", question="Who?", answer="gold")
    options = ("gold", "one", "two", "three")
    items = [ChoiceItem(i // 2, question, options) for i in range(2 * CONTROLS)]
    losses: dict[str, OptionLosses] = {
        name: [[loss(name, k == 0, draw.normal()) for k in range(4)] for _ in items]
        for name in ("right", "other", "none")
    }
    controls = [f"control {item.row:02}" for item in items]
    return measure_identification(losses, controls, 3, CONFIG).to_json()


def holds_zero(leaf: dict[str, float]) -> bool:
    return leaf["low"] <= 0 <= leaf["high"]


def test_a_decoder_that_ignores_activations_is_at_chance() -> None:
    found = planted(lambda name, gold, noise: 2 + noise)
    assert holds_zero(found["grounded_gain"])
    assert holds_zero(found["information_gain"])
    assert found["accuracy"]["right"]["low"] < 0.25 < found["accuracy"]["right"]["high"]


def test_chance_is_what_the_answers_give_away_by_themselves() -> None:
    found = planted(lambda name, gold, noise: 2 - gold + 0.5 * noise)
    assert found["chance"]["estimate"] > 0.6
    assert holds_zero(found["information_gain"])


def test_overconfidence_on_wrong_activations_is_no_information() -> None:
    # given another's activations it is sure of a wrong answer, and no better given its own
    found = planted(lambda name, gold, noise: 2 + (4 * gold if name == "other" else noise))
    assert found["grounded_gain"]["low"] > 0
    assert holds_zero(found["information_gain"])


def test_a_perfect_decoder_scores_full_marks() -> None:
    found = planted(lambda name, gold, noise: 0.0 if gold and name == "right" else 9 + 0.1 * noise)
    assert found["accuracy"]["right"] == {"estimate": 1.0, "low": 1.0, "high": 1.0, "n": CONTROLS}
    assert found["information_gain"]["low"] > 0.3


def test_the_shape_is_the_documented_one() -> None:
    found = planted(lambda name, gold, noise: noise)
    assert (found["asked"], found["left_out"]) == (48, 3)
    assert set(found["accuracy"]) == {"right", "other", "none"}


def test_without_items_every_estimate_is_empty() -> None:
    found = measure_identification({"right": [], "other": [], "none": []}, [], 2, CONFIG).to_json()
    nothing = {"estimate": None, "low": None, "high": None, "n": 0}
    assert found["accuracy"]["right"] == found["information_gain"] == nothing
    assert (found["asked"], found["left_out"]) == (0, 2)


def test_options_as_likely_as_gold_share_the_mark() -> None:
    found = planted(lambda name, gold, noise: 2.0)
    assert found["accuracy"]["right"]["estimate"] == 0.25


def test_option_losses_are_those_of_each_answer_alone(tmp_path_factory: Any) -> None:
    made = chain.make(tmp_path_factory.mktemp("options"), chain.rows_of(splits={"test": 6}))
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    decoder = chain.decoder(made, nudge=0.2)
    context = EvalContext(store, chain.LAYER, masking=True, seed=0)
    readings = [CONDITIONS["right"].read(one, context) for one in rows]
    items, without = make_items(rows, rows, options=3, seed=0)
    assert (len(items), without) == (6, 6)  # all say yes to the second question
    found = compute_option_losses(decoder, rows, items[1:], readings)
    plain = compute_question_losses(decoder, rows, readings)
    for item, losses in zip(items[1:], found, strict=True):
        assert len(losses) == 3
        assert losses[0] == pytest.approx(plain[item.row][0], abs=1e-4)
        assert len({round(loss, 4) for loss in losses}) == 3
