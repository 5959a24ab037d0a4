"""Control effects of rows: spread to rows without a completion, flagged, summarised."""

from __future__ import annotations

import pytest
from table_rows import conversation

from core.records.tables import COMPLETES, Conversation, Split, View
from generators.quality.config import ControlEffectConfig
from generators.quality.control_effects import (
    EFFECT,
    flag_ignored,
    record_effects,
    spread_effects,
    summarise_effects,
)


def row(
    name: str,
    control: str,
    view: View = "stimulus_completion",
    split: Split = "train",
    completes: str | None = None,
) -> Conversation:
    return conversation(
        example_id=name,
        control_id=control,
        view=view,
        split=split,
        provenance={} if completes is None else {COMPLETES: completes},
    )


ROWS = [
    row("asked 1", "pirate", "stimulus"),
    row("asked 2", "pirate", "stimulus"),
    row("said 1", "pirate", completes="asked 1"),
    row("said 2", "pirate", completes="asked 2"),
    row("system", "pirate", "system"),
    row("alone", "pirate", "control"),
    row("held out", "nurse", split="test"),
    row("silent", "monk", "system"),
]
EFFECTS = {"said 1": 3.0, "said 2": -1.0, "held out": -2.0}


def test_rows_without_a_completion_have_the_effect_of_those_that_have_one() -> None:
    found = spread_effects(ROWS, EFFECTS)
    assert found == {**EFFECTS, "asked 1": 3.0, "asked 2": -1.0, "system": 1.0}


def test_rows_below_the_least_are_flagged_in_the_splits_named() -> None:
    spread = spread_effects(ROWS, EFFECTS)
    config = ControlEffectConfig(least=0.0, splits=("train", "validation"))
    found = flag_ignored(ROWS, spread, config)
    assert {name: fault.reason for name, fault in found.items()} == {
        "asked 2": "control_ignored",
        "said 2": "control_ignored",
    }
    assert set(flag_ignored(ROWS, spread, ControlEffectConfig(least=2.0))) == {
        *("asked 2", "said 2", "system", "held out"),
    }
    assert flag_ignored(ROWS, spread, ControlEffectConfig()) == {}


def test_effects_are_summarised_and_stand_in_the_rows() -> None:
    found = summarise_effects(ROWS, EFFECTS)
    assert found["all"] == found["persona/sea"]
    assert found["all"].to_json() == {
        "rows": 3,
        "controls": 2,
        "mean": 0.0,
        "median": -1.0,
        "below_zero": pytest.approx(2 / 3),
    }
    recorded = {own.example_id: own.provenance for own in record_effects(ROWS, EFFECTS)}
    assert recorded["said 1"] == {COMPLETES: "asked 1", EFFECT: 3.0}
    assert recorded["system"] == {}
