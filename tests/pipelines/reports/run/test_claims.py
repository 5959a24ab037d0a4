"""Claims of reading: all three conditions, and which one is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.reports.run.claims import ReadingClaim, assess_reading, headline
from pipelines.reports.run.data import Reading
from pipelines.reports.run.files import Leaf

ABOVE = Leaf(0.5, 0.4, 0.6, 20)
READS = Reading(
    split="test",
    view="control",
    losses={"right": Leaf(2.0, 1.9, 2.1, 20), "other": Leaf(2.5, 2.4, 2.6, 20)},
    untrained={"right": Leaf(2.7, 2.6, 2.8, 20)},
    grounded=ABOVE,
    information=ABOVE,
    below_untrained=Leaf(0.7, 0.6, 0.8, 20),
    best_uninformed="mean",
    excluded={},
)


def test_reads_where_both_gains_are_above_zero_and_right_is_below_the_untrained() -> None:
    claim = assess_reading(READS)
    assert claim.holds
    assert claim.missing == ()
    assert "0.50\u00a0[0.40,\u00a00.60] less than with the best uninformed" in claim.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grounded": Leaf(0.1, -0.1, 0.3, 20)}, "the grounded gain, 0.10"),
        ({"grounded": Leaf(0.1, 0.0, 0.2, 20)}, "reaches zero"),
        ({"information": Leaf(-0.3, -0.5, -0.1, 20)}, "is below zero"),
        ({"information": Leaf(0.3, None, None, 4)}, "0.30, has too few controls for an interval"),
        ({"information": None}, "the information gain was not measured"),
        (
            {
                "below_untrained": Leaf(-0.1, -0.2, 0.0, 20),
                "untrained": {"right": Leaf(1.9, 1.8, 2, 20)},
            },
            "right is not below the untrained decoder’s (2.00 against 1.90)",
        ),
        ({"below_untrained": None, "untrained": {}}, "the untrained decoder was not measured"),
        ({"losses": {}}, "no row could be measured"),
    ],
)
def test_one_missing_condition_is_no_reading_and_is_named(
    change: dict[str, object], words: str
) -> None:
    claim = assess_reading(replace(READS, **change))  # type: ignore[arg-type]
    assert not claim.holds
    assert len(claim.missing) == 1
    assert words in claim.missing[0]


def test_right_below_the_untrained_within_its_interval_is_said() -> None:
    claim = assess_reading(replace(READS, below_untrained=Leaf(0.1, -0.1, 0.3, 20)))
    assert claim.holds
    assert claim.sentence.endswith("The last of these intervals reaches zero.")


def test_the_untrained_decoders_mean_stands_in_for_the_paired_difference() -> None:
    assert assess_reading(replace(READS, below_untrained=None)).holds


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ((), "Nothing was evaluated, so nothing is claimed."),
        ((False, False), "This run does not show that the decoder reads."),
        ((True, True), "The decoder reads, in every view judged: v0 (test) and v1 (test)."),
        ((False, True), "The decoder reads in v1 (test); elsewhere this run does not show it."),
    ],
)
def test_headline_claims_no_more_than_the_claims(reads: tuple[bool, ...], words: str) -> None:
    claims = [ReadingClaim("test", f"v{i}", r, (), "") for i, r in enumerate(reads)]
    assert headline([READS], claims, least=8) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"losses": {}, "excluded": {"no_other_control": 4}},
            "This run could judge nothing: no row has another control of its kind and split to be "
            "compared with.",
        ),
        (
            {"losses": {"right": Leaf(2.0, None, None, 1)}},
            "This run could judge nothing: it has at most 1 control a split and view, and an "
            "interval needs 8.",
        ),
    ],
)
def test_a_run_that_could_judge_nothing_says_so(change: dict[str, object], words: str) -> None:
    reading = replace(READS, **change)  # type: ignore[arg-type]
    assert headline([reading], [assess_reading(reading)], least=8) == words
