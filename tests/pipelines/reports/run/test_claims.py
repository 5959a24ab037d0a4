"""Claims of reading: all three conditions, and which one is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.records.estimate import Estimate
from evaluators.measure.metrics import SliceMetrics
from pipelines.reports.run.claims import ReadingClaim, assess_reading, headline
from pipelines.reports.run.evaluation import ReadingResult


def estimated(value: float, low: float | None, high: float | None, n: int) -> Estimate:
    return Estimate(estimate=value, low=low, high=high, n=n)


ABOVE = estimated(0.5, 0.4, 0.6, 20)
READS = ReadingResult(
    split="test",
    view="system",
    metrics=SliceMetrics(
        answer_loss={
            "right": estimated(2.0, 1.9, 2.1, 20),
            "swapped": estimated(2.5, 2.4, 2.6, 20),
        },
        untrained={"right": estimated(2.7, 2.6, 2.8, 20)},
        grounded_gain=ABOVE,
        information_gain=ABOVE,
        below_untrained=estimated(0.7, 0.6, 0.8, 20),
        best_uninformed="mean",
        excluded={},
        hidden_gain=ABOVE,
        below_rivals=estimated(0.3, 0.2, 0.4, 20),
    ),
)


def changed(**change: object) -> ReadingResult:
    """Change metrics of `READS`."""
    return replace(READS, metrics=READS.metrics.model_copy(update=change))


def test_it_reads_where_the_hidden_gain_and_the_lead_over_rivals_are_above_zero() -> None:
    claim = assess_reading(READS)
    assert claim.holds
    assert claim.missing == ()
    assert "0.50\u00a0[0.40,\u00a00.60] less than with the same visible text" in claim.sentence
    assert "0.30\u00a0[0.20,\u00a00.40] less than for the better of the rivals" in claim.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_gain": estimated(0.1, -0.1, 0.3, 20)}, "the hidden gain, 0.10"),
        ({"hidden_gain": estimated(0.1, 0.0, 0.2, 20)}, "reaches zero"),
        ({"hidden_gain": estimated(-0.3, -0.5, -0.1, 20)}, "is below zero"),
        (
            {"hidden_gain": estimated(0.3, None, None, 4)},
            "0.30, has too few controls for an interval",
        ),
        ({"hidden_gain": None}, "the hidden gain was not measured"),
        ({"below_rivals": None}, "trained rivals are missing"),
        (
            {"below_rivals": estimated(0.1, -0.1, 0.3, 20)},
            "the answer loss is not below that of the better trained rival",
        ),
        ({"answer_loss": {}}, "no row could be measured"),
    ],
)
def test_one_missing_condition_is_no_reading_and_is_named(
    change: dict[str, object], words: str
) -> None:
    claim = assess_reading(changed(**change))
    assert not claim.holds
    assert len(claim.missing) == 1
    assert words in claim.missing[0]


@pytest.mark.parametrize("view", ["control", "system+visible"])
def test_where_the_control_is_visible_nothing_is_claimed(view: str) -> None:
    claim = assess_reading(replace(READS, view=view))
    assert not claim.holds
    assert claim.verdict == "Check only"
    assert "a check of the instrument" in claim.sentence


def test_positions_that_tell_the_length_are_said() -> None:
    claim = assess_reading(changed(position_effect=ABOVE))
    assert "also reads the length of the hidden text" in claim.sentence
    assert "length" not in assess_reading(changed(position_effect=estimated(0, -1, 1, 9))).sentence


def test_a_target_that_ignores_its_control_is_said() -> None:
    firm = assess_reading(changed(control_effect=ABOVE)).sentence
    loose = assess_reading(changed(control_effect=estimated(0.0, -0.1, 0.1, 20))).sentence
    assert "The target holds its control" in firm
    assert "The target hardly holds its control" in loose


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ((), "Nothing was evaluated, so nothing is claimed."),
        ((False, False), "This run does not show that the decoder reads what is hidden."),
        (
            (True, True),
            "The decoder reads what is hidden in every masked view evaluated: v0 (test) and "
            "v1 (test).",
        ),
        (
            (False, True),
            "The decoder reads what is hidden in v1 (test); elsewhere this run does not show it.",
        ),
    ],
)
def test_headline_claims_no_more_than_the_claims(reads: tuple[bool, ...], words: str) -> None:
    claims = [ReadingClaim("test", f"v{i}", r, (), "") for i, r in enumerate(reads)]
    readings = [replace(READS, view=claim.view) for claim in claims]
    assert headline(readings, claims, least=8) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"answer_loss": {}, "excluded": {"no_other_control": 4}},
            "This run measured nothing: no row has another control of its kind and split for "
            "comparison.",
        ),
        (
            {"answer_loss": {"right": estimated(2.0, None, None, 1)}},
            "This run has too few controls for a verdict: at most 1 control per split and view, "
            "and an interval needs 8.",
        ),
    ],
)
def test_a_run_that_could_judge_nothing_says_so(change: dict[str, object], words: str) -> None:
    reading = changed(**change)
    assert headline([reading], [assess_reading(reading)], least=8) == words
