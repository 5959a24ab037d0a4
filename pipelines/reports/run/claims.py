"""Whether a decoder reads, in words: the one rule, and what is missing where it does not hold.

A claim of reading needs the intervals of both gains above zero *and* `right` below the untrained
decoder's: a gain alone can grow because the decoder gets worse on wrong activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.wording import join, number
from pipelines.reports.run.data import Reading
from pipelines.reports.run.files import Leaf


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one split and view.

    Attributes:
        reads: whether all three conditions hold.
        missing: each condition that does not hold, in words; empty where it reads.
        sentence: the judgement with its numbers.
    """

    split: str
    view: str
    reads: bool
    missing: tuple[str, ...]
    sentence: str


def judge(reading: Reading) -> Verdict:
    """The verdict on one split and view."""
    if not reading.losses:
        nothing = "no row could be measured"
        return Verdict(reading.split, reading.view, False, (nothing,), f"{nothing.capitalize()}.")
    missing = tuple(
        text
        for text in (
            _gain_missing("grounded gain", reading.grounded),
            _gain_missing("information gain", reading.information),
            _untrained_missing(reading),
        )
        if text
    )
    reads = not missing
    return Verdict(
        split=reading.split,
        view=reading.view,
        reads=reads,
        missing=missing,
        sentence=_reads_sentence(reading)
        if reads
        else f"On {reading.n} controls: {'; '.join(missing)}.",
    )


def headline(verdicts: Sequence[Verdict]) -> str:
    """One line over all verdicts."""
    if not verdicts:
        return "Nothing was evaluated, so nothing is claimed."
    where = [f"{verdict.view} ({verdict.split})" for verdict in verdicts if verdict.reads]
    if not where:
        return "This run does not show that the decoder reads."
    if len(where) == len(verdicts):
        return f"The decoder reads, in every view judged: {join(where)}."
    return f"The decoder reads in {join(where)}; elsewhere this run does not show it."


def below_untrained(reading: Reading) -> Leaf | None:
    """Untrained `right` less trained `right`: positive where training made `right` cheaper.

    Without the paired leaf it is the difference of the two means, with no interval.
    """
    if reading.below_untrained is not None:
        return reading.below_untrained
    right, untrained = reading.losses.get("right"), reading.untrained.get("right")
    if right is None or untrained is None:
        return None
    return Leaf(untrained.estimate - right.estimate, None, None, min(right.n, untrained.n))


def _gain_missing(name: str, leaf: Leaf | None) -> str | None:
    if leaf is None:
        return f"the {name} was not measured"
    if leaf.low is None:
        return f"the {name}, {number(leaf.estimate)}, has too few controls for an interval"
    if not leaf.above_zero:
        side = "is below zero" if (leaf.high or 0.0) < 0 else "reaches zero"
        return f"the {name}, {leaf}, {side}"
    return None


def _untrained_missing(reading: Reading) -> str | None:
    gap = below_untrained(reading)
    if gap is None:
        return "the untrained decoder was not measured"
    if gap.estimate <= 0:
        right, untrained = reading.losses.get("right"), reading.untrained.get("right")
        sides = (
            f" ({number(right.estimate)} against {number(untrained.estimate)})"
            if right and untrained
            else ""
        )
        return f"right is not below the untrained decoder’s{sides}"
    return None


def _reads_sentence(reading: Reading) -> str:
    gap = below_untrained(reading)
    right = reading.losses.get("right")
    # judge() calls this only where the three were measured
    assert reading.grounded is not None
    assert reading.information is not None
    assert gap is not None
    cost = (
        f"an answer costs {number(right.estimate)} nats per token" if right else "an answer costs"
    )
    best = f" ({reading.best_uninformed})" if reading.best_uninformed else ""
    sentence = (
        f"On {reading.n} controls, {cost} with the row’s own activations: "
        f"{reading.grounded} less than with another control’s, "
        f"{reading.information} less than with the best uninformed condition{best}, "
        f"and {gap} less than before training."
    )
    if gap.low is not None and gap.low <= 0:
        sentence += " The last of these intervals reaches zero."
    return sentence
