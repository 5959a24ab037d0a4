"""The report's pages of groups, measured answers and identification."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_example import SMALL, Page, leaf, report, write_example, write_step

from evaluators.measure.result_files import JUDGED_FILE
from pipelines.reports.run.inputs import ReportInputs

IDENTIFICATION: dict[str, Any] = {
    "accuracy": {
        "right": leaf(0.6),
        "other": leaf(0.3),
        "none": leaf(0.35),
        "prior": leaf(0.44),
    },
    "chance": leaf(0.36),
    "grounded_gain": leaf(0.3),
    "information_gain": leaf(0.24),
    "asked": 30,
    "left_out": 2,
}


@pytest.fixture
def inputs(tmp_path: Path) -> ReportInputs:
    """Write an evaluation that measured everything."""
    made = write_example(tmp_path / "root", SMALL)
    data = next((tmp_path / "root" / "evaluate").glob("*/data"))
    found = {
        **SMALL["test"]["control"],
        "answers": {"vague": {"right": leaf(0.1), "other": leaf(0.7), "difference": leaf(-0.6)}},
        "generic": {"other": leaf(0.2), "none": leaf(0.4)},
        "identification": IDENTIFICATION,
        "left_out": {"wrong_layer": "the store has layer 14 alone; add another to dump.layers"},
    }
    (data / "metrics.json").write_text(json.dumps({"reading": {"test": {"control": found}}}))
    return made


@pytest.fixture
def page(inputs: ReportInputs, tmp_path: Path) -> Page:
    return report(inputs, tmp_path / "out")


def test_groups_are_shown_by_kind_and_question(page: Page) -> None:
    assert re.search(r"kind: persona 14 \d\.\d\d \[", page.text)
    assert re.search(r"question: Who is speaking\? 40 \d\.\d\d \[", page.text)
    assert "type: description" not in page.text  # all questions have that type


def test_generic_answers_are_shown(page: Page) -> None:
    assert "test control 40 – 0.20 [0.10, 0.30] 0.40 [0.30, 0.50]" in page.text


def test_measured_answers_are_shown(page: Page) -> None:
    assert "test control vague 40 0.10 [0.00, 0.20] 0.70" in page.text


def test_identification_is_shown_with_chance(page: Page) -> None:
    assert "test control 30 40 0.60 [0.50, 0.70]" in page.text
    assert "items n right other none prior chance" in page.text  # what was measured, no more
    assert "0.35 [0.25, 0.45] 0.44 [0.34, 0.54] 0.36" in page.text
    assert "2 questions left out, asked of too few other controls" in page.text


def test_a_condition_that_is_left_out_is_said(page: Page) -> None:
    assert "wrong_layer is left out; the store has layer 14 alone" in page.text


def test_what_was_not_measured_is_not_mentioned(tmp_path: Path) -> None:
    made = write_example(tmp_path / "root", SMALL)
    page = report(made, tmp_path / "out")
    assert "Identification" not in page.text
    assert "Generic answers" not in page.text


def test_a_judges_verdicts_stand_beside_what_was_measured_with_its_agreement(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    step = write_step(tmp_path, "judge")
    sides = {"right": leaf(0.5), "other": leaf(0.25), "difference": leaf(0.25)}
    judged = {
        "shares": dict.fromkeys(("right", "vague", "wrong"), sides),
        "agreement": {"n": 20, "raw": 0.85, "kappa": 0.61},
        "unread": 3,
    }
    (step.data / JUDGED_FILE).write_text(json.dumps({"judged": {"test": {"control": judged}}}))
    made = replace(inputs, steps=(*inputs.steps, step))
    found = report(made, tmp_path / "out")
    assert "judged right" in found.text
    words = " ".join(found.text.split())
    assert "its passes agree on 85 % of 20 (κ 0.61)." in words
    assert "could not be read: 3 questions" in words
