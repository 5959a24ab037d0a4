"""Claims of reading, in words: where a decoder reads, and what is missing where it does not.

A claim of reading needs the intervals of both gains above zero *and* `right` below the untrained
decoder's: a gain alone can grow because the decoder gets worse on wrong activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.wording import join, number
from pipelines.reports.run.data import Reading
from pipelines.reports.run.files import Leaf

_EXCLUDED = {
    "no_other_control": "no row has another control of its kind and split to be compared with",
    "unwritable": "the chat template cannot write the questions",
}


@dataclass(frozen=True, slots=True)
class ReadingClaim:
    """Whether the decoder reads on one split and view.

    Attributes:
        split: of the rows.
        view: of the rows.
        holds: whether all three conditions hold.
        missing: each condition that does not hold, in words; empty where the claim holds.
        sentence: the claim with its numbers, or what is missing.
    """

    split: str
    view: str
    holds: bool
    missing: tuple[str, ...]
    sentence: str


def assess_reading(reading: Reading) -> ReadingClaim:
    """Assess the claim that a decoder reads on one split and view."""
    if not reading.losses:
        nothing = "no row could be measured"
        why = join(_reasons([reading]))
        sentence = f"{nothing.capitalize()}{f': {why}' if why else ''}."
        return ReadingClaim(reading.split, reading.view, False, (nothing,), sentence)
    missing = tuple(
        text
        for text in (
            _missing_gain("grounded gain", reading.grounded),
            _missing_gain("information gain", reading.information),
            _missing_training_effect(reading),
        )
        if text
    )
    sentence = f"On {reading.n} controls: {'; '.join(missing)}." if missing else _proof(reading)
    return ReadingClaim(reading.split, reading.view, not missing, missing, sentence)


def headline(readings: Sequence[Reading], claims: Sequence[ReadingClaim], *, least: int) -> str:
    """Say in one sentence where the decoder reads, or why that cannot be said.

    Args:
        readings: what was measured.
        claims: on the same readings.
        least: controls that an interval needs.
    """
    if not claims:
        return "Nothing was evaluated, so nothing is claimed."
    measured = [reading for reading in readings if reading.losses]
    if not measured:
        why = join(_reasons(readings))
        return f"This run could judge nothing{f': {why}' if why else ''}."
    most = max(reading.n for reading in measured)
    if most < least:
        controls = "control" if most == 1 else "controls"
        return (
            f"This run could judge nothing: it has at most {most} {controls} a split and view, and "
            f"an interval needs {least}."
        )
    where = [f"{claim.view} ({claim.split})" for claim in claims if claim.holds]
    if not where:
        return "This run does not show that the decoder reads."
    if len(where) == len(claims):
        return f"The decoder reads, in every view judged: {join(where)}."
    return f"The decoder reads in {join(where)}; elsewhere this run does not show it."


def below_untrained(reading: Reading) -> Leaf | None:
    """Return untrained `right` less trained `right`: positive where training made it cheaper.

    Without the paired estimate it is the difference of the two means, with no interval.
    """
    if reading.below_untrained is not None:
        return reading.below_untrained
    right, untrained = reading.losses.get("right"), reading.untrained.get("right")
    if right is None or untrained is None:
        return None
    return Leaf(untrained.estimate - right.estimate, None, None, min(right.n, untrained.n))


def _reasons(readings: Sequence[Reading]) -> list[str]:
    """Word why rows were left out, each reason once."""
    reasons = dict.fromkeys(reason for reading in readings for reason in reading.excluded)
    return [_EXCLUDED.get(reason, reason.replace("_", " ")) for reason in reasons]


def _missing_gain(name: str, gain: Leaf | None) -> str | None:
    if gain is None:
        return f"the {name} was not measured"
    if gain.low is None:
        return f"the {name}, {number(gain.estimate)}, has too few controls for an interval"
    if not gain.above_zero:
        side = "is below zero" if (gain.high or 0.0) < 0 else "reaches zero"
        return f"the {name}, {gain}, {side}"
    return None


def _missing_training_effect(reading: Reading) -> str | None:
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


def _proof(reading: Reading) -> str:
    """Word the numbers behind a claim that holds."""
    gap = below_untrained(reading)
    right = reading.losses.get("right")
    assert reading.grounded is not None, "a claim that holds has all three conditions"
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
