"""Drift between versions: none where none is, and the distribution that moved first."""

from __future__ import annotations

import chain

from core.records.tables import View
from pipelines.versions.drift import Drift, Rows, measure_drift


def rows(numbers: range, *, view: View = "control", kind: str = "persona", more: str = "") -> Rows:
    made = [chain.row(number, view=view, kind=kind) for number in numbers]
    asked = [q for _, questions in made for q in questions]
    if more:
        asked = [type(q)(example_id=q.example_id, question=q.question, answer=more) for q in asked]
    return Rows([conversation for conversation, _ in made], asked)


def named(found: list[Drift]) -> dict[str, Drift]:
    return {one.name: one for one in found}


def test_rows_that_are_drawn_alike_do_not_drift() -> None:
    found = measure_drift(rows(range(80)), rows(range(800, 880)))
    assert not [one.name for one in found if one.stands_out and one.name != "length of controls"]
    assert named(found)["category"].distance == 0.0


def test_another_kind_is_as_far_as_can_be() -> None:
    found = named(measure_drift(rows(range(40)), rows(range(40, 80), kind="goal")))
    assert found["kind"].distance == 1.0
    assert found["kind"].stands_out
    assert "goal: 0 % → 100 %" in found["kind"].most or "persona: 100 % → 0 %" in found["kind"].most


def test_longer_answers_stand_out_with_both_medians() -> None:
    found = measure_drift(rows(range(40)), rows(range(40, 80), more="x" * 90))
    assert found[0].name == "length of answers"
    assert found[0].distance == 1.0
    assert "→ 90 characters" in found[0].most


def test_a_distance_of_a_few_rows_is_chance() -> None:
    found = named(measure_drift(rows(range(4)), rows(range(4, 8))))
    assert found["category"].distance == 1.0
    assert not found["category"].stands_out


def test_what_one_side_lacks_is_left_out() -> None:
    assert "length of stimuli" not in named(measure_drift(rows(range(8)), rows(range(8))))
