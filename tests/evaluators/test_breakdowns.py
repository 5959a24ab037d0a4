"""Groups of controls, and every number as a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluators.breakdowns import (
    answers_by_group,
    group_metrics,
    items_by_group,
    label_groups,
    panel_by_group,
)
from evaluators.config import EvaluateConfig
from evaluators.measure.metrics import PairedEstimates
from evaluators.measure.panel import measure_panel
from evaluators.measure.result_rows import result_rows

CONFIG = EvaluateConfig(bootstrap=500)
CONTROLS = np.repeat([f"control {i:02}" for i in range(15)], 2)
KINDS = ["persona"] * 20 + ["goal"] * 10
TYPES = ["description", "prediction"] * 15
TYPES_TWO = ("description", "prediction")
NAMES = ("right", "other", "mean", "none", "untrained_right", "untrained_other")


@pytest.fixture
def losses() -> dict[str, np.ndarray]:
    """Other controls' activations cost one nat more in personas, and in descriptions another."""
    random = np.random.default_rng(0)
    found = {name: 2 + random.normal(0, 0.1, 30) for name in NAMES}
    found["other"] += np.repeat([1.0, 0.0], [20, 10]) + np.tile([1.0, 0.0], 15)
    return found


def test_each_group_is_a_panel_of_its_own(losses: dict[str, np.ndarray]) -> None:
    found = panel_by_group(losses, CONTROLS, {"kind": KINDS, "type": TYPES}, CONFIG)
    assert list(found) == ["kind=goal", "kind=persona", "type=description", "type=prediction"]
    gain = {name: one.grounded_gain for name, one in found.items()}
    assert gain["kind=persona"].estimate == pytest.approx(1.5, abs=0.15)
    assert gain["kind=goal"].estimate == pytest.approx(0.5, abs=0.15)
    assert gain["type=prediction"].estimate == pytest.approx(2 / 3, abs=0.15)
    assert {name: one.n for name, one in gain.items()} == {
        "kind=goal": 5,
        "kind=persona": 10,
        "type=description": 15,
        "type=prediction": 15,
    }


def test_a_group_with_too_few_controls_says_so_in_place_of_an_interval(
    losses: dict[str, np.ndarray],
) -> None:
    found = panel_by_group(losses, CONTROLS, {"kind": KINDS}, CONFIG)
    assert found["kind=goal"].grounded_gain.low is None
    rows = list(result_rows("kind=goal", found["kind=goal"], min_controls=CONFIG.min_controls))
    assert {row["note"] for row in rows} == {"5 controls; an interval needs 8"}


def test_every_leaf_is_a_row(losses: dict[str, np.ndarray]) -> None:
    found = measure_panel(losses, CONTROLS, CONFIG)
    same = dict.fromkeys(("right", "other", "difference"), found.grounded_gain)
    answers = {"vague": PairedEstimates(**same)}
    whole = found.model_copy(update={"answers": answers})
    rows = {row["metric"]: row for row in result_rows("all", whole, min_controls=8)}
    assert set(rows) == {
        *(f"answer_loss.{name}" for name in NAMES[:4]),
        *("untrained.right", "untrained.other"),
        *("grounded_gain", "information_gain", "below_untrained"),
        *(f"answers.vague.{name}" for name in same),
    }
    assert rows["grounded_gain"] == {
        "group": "all",
        "metric": "grounded_gain",
        **found.grounded_gain.model_dump(),
        "note": None,
    }


def answer(i: int) -> dict[str, Any]:
    return {
        "control_id": f"control {i:02}",
        "kind": "goal" if i % 3 == 0 else "persona",
        "category": "sea",
        "type": None,
        "question": "Who?",
        "gold": "a pirate of old",
        "right": "a pirate of old",
        "other": "a pirate of old" if i % 3 == 0 else "a nurse",
        **{f"{side}_log_probability": -1.0 for side in ("right", "other")},
        **{f"{side}_finished": True for side in ("right", "other")},
    }


def test_answers_are_measured_by_kind_and_type() -> None:
    found = answers_by_group([answer(i) for i in range(30)], CONFIG)
    assert list(found) == ["kind=goal", "kind=persona", "type=unstated"]
    sensitive = {name: one["sensitive"].right for name, one in found.items()}
    assert {name: (one.estimate, one.n) for name, one in sensitive.items()} == {
        "kind=goal": (0.0, 10),
        "kind=persona": (1.0, 20),
        "type=unstated": (pytest.approx(2 / 3), 30),
    }


def test_identification_is_measured_by_kind_and_type() -> None:
    items = [
        {
            "kind": "goal" if i < 8 else "persona",
            "category": "sea",
            "type": TYPES_TWO[i % 2],
            "question": f"Who, {i}?",
            "control_id": f"control {i:02}",
        }
        for i in range(20)
    ]
    right = [[0.0, 1.0] if item["kind"] == "goal" else [1.0, 0.0] for item in items]
    losses = {"right": right, "other": [[1.0, 1.0]] * 20, "none": [[1.0, 1.0]] * 20}
    found = items_by_group(items, losses, CONFIG)
    assert list(found) == [
        *("kind=goal", "kind=persona", "category=goal/sea", "category=persona/sea"),
        *("type=description", "type=prediction"),
    ]
    accuracy = {name: one.accuracy["right"].estimate for name, one in found.items()}
    assert accuracy["kind=goal"] == 1
    assert accuracy["kind=persona"] == 0
    assert accuracy["type=prediction"] == pytest.approx(0.4)


def test_a_question_is_a_group_where_enough_controls_were_asked_it() -> None:
    asked = [
        {
            "kind": "persona",
            "category": "sea",
            "type": None,
            "question": "Who?" if i < 4 else "Why?",
            "control_id": f"control {i}",
        }
        for i in range(7)
    ]
    assert label_groups(asked)["question"] == ["Who?"] * 4 + [None] * 3


def test_files_tell_that_one_question_is_read_and_the_other_is_not() -> None:
    costs = {"right": 0.1, "swapped": 0.6, "prior": 0.4, "visible_text": 0.3}
    costs |= {"other": 1.0, "untrained_right": 2.0, "untrained_other": 2.0}
    losses = [
        {
            "split": "test",
            "view": "system",
            "kind": "instruction",
            "category": "persona+form",
            "type": "description",
            "question": question,
            "control_id": f"control {i}",
            "condition": condition,
            # the persona costs as much whatever is hidden
            "loss": (cost if question == "Which form?" else 0.35) + i / 1000,
        }
        for condition, cost in costs.items()
        for i in range(10)
        for question in ("Which form?", "Which persona?")
    ]
    found = group_metrics(losses, [], CONFIG)["test"]["system"]
    form, persona = found["question=Which form?"], found["question=Which persona?"]
    assert form.hidden_gain is not None
    assert form.hidden_gain.estimate == pytest.approx(0.5)
    assert form.below_rivals is not None
    assert form.below_rivals.estimate == pytest.approx(0.2)
    assert persona.hidden_gain is not None
    assert persona.hidden_gain.estimate == pytest.approx(0)
