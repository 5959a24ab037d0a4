"""Claims of reading, in words: where a decoder reads what is hidden, and what is missing elsewhere.

A claim stands in a masked view alone. It needs the interval of the hidden gain above zero (the same
visible text under another control costs more) *and* `right` below both trained rivals, which saw
all but what is hidden. In view `control` the answers stand in the text that is seen: its gains are
a check of the instrument, and no claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.records.estimate import Estimate
from core.text.wording import join, number
from pipelines.reports.run.evaluation import ReadingResult

_EXCLUDED = {
    "no_other_control": "no row has another control of its kind and split for comparison",
    "unwritable": "the chat template cannot render the questions",
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
        masked: whether the control is hidden, so that something can be claimed.
    """

    split: str
    view: str
    holds: bool
    missing: tuple[str, ...]
    sentence: str
    masked: bool = True

    @property
    def verdict(self) -> str:
        """One or two words for the claim."""
        if not self.masked:
            return "Check only"
        return "Reads" if self.holds else "Not shown"


def assess_reading(reading: ReadingResult) -> ReadingClaim:
    """Assess the claim that a decoder reads on one split and view."""
    if not reading.losses:
        nothing = "no row could be measured"
        why = join(_reasons([reading]))
        sentence = f"{nothing.capitalize()}{f': {why}' if why else ''}."
        return ReadingClaim(reading.split, reading.view, False, (nothing,), sentence)
    if not reading.hides_control:
        visible = "the control is visible here, so nothing hidden is read"
        return ReadingClaim(
            reading.split,
            reading.view,
            False,
            (visible,),
            _instrument_check(reading),
            masked=False,
        )
    missing = tuple(
        text
        for text in (
            _missing_gain("hidden gain", reading.metrics.hidden_gain),
            _missing_rivals(reading.metrics.below_rivals),
        )
        if text
    )
    sentence = _proof(reading) if not missing else f"On {reading.n} controls: {'; '.join(missing)}."
    return ReadingClaim(
        reading.split, reading.view, not missing, missing, sentence + _asides(reading)
    )


def headline(
    readings: Sequence[ReadingResult], claims: Sequence[ReadingClaim], *, least: int
) -> str:
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
        return f"This run measured nothing{f': {why}' if why else ''}."
    most = max(reading.n for reading in measured)
    if most < least:
        controls = "control" if most == 1 else "controls"
        return (
            f"This run has too few controls for a verdict: at most {most} {controls} per "
            f"split and view, and an interval needs {least}."
        )
    hiding = [reading for reading in readings if reading.hides_control]
    if not hiding:
        return "No masked view was evaluated: the control is visible in every view of this run."
    where = [f"{claim.view} ({claim.split})" for claim in claims if claim.holds]
    if not where:
        return "This run does not show that the decoder reads what is hidden."
    if len(where) == len(hiding):
        return f"The decoder reads what is hidden in every masked view evaluated: {join(where)}."
    return (
        f"The decoder reads what is hidden in {join(where)}; elsewhere this run does not show it."
    )


def _reasons(readings: Sequence[ReadingResult]) -> list[str]:
    """Word why rows were left out, each reason once."""
    reasons = dict.fromkeys(reason for reading in readings for reason in reading.metrics.excluded)
    return [_EXCLUDED.get(reason, reason.replace("_", " ")) for reason in reasons]


def _missing_gain(name: str, gain: Estimate | None) -> str | None:
    if gain is None or gain.estimate is None:
        return f"the {name} was not measured"
    if gain.low is None:
        return f"the {name}, {number(gain.estimate)}, has too few controls for an interval"
    if not gain.above_zero:
        side = "is below zero" if (gain.high or 0.0) < 0 else "reaches zero"
        return f"the {name}, {gain}, {side}"
    return None


def _missing_rivals(gain: Estimate | None) -> str | None:
    if gain is None or gain.estimate is None:
        return "trained rivals are missing (evaluate.baselines: [prior, visible_text])"
    if gain.low is None or gain.above_zero:
        return _missing_gain("gain over the trained rivals", gain)
    return f"the answer loss is not below that of the better trained rival (difference {gain})"


def _proof(reading: ReadingResult) -> str:
    """Word the numbers behind a claim that holds."""
    right, metrics = reading.losses["right"], reading.metrics
    sentence = (
        f"On {reading.n} controls, the answer loss is {number(right.estimate or 0.0)} nats "
        f"per token: {metrics.hidden_gain} less than with the same visible text under "
        f"another control, and {metrics.below_rivals} less than for the better of the "
        "rivals trained without the hidden control."
    )
    if metrics.share_recovered is not None:
        sentence += (
            f" It recovers {metrics.share_recovered} of the lead that the control's own text gives."
        )
    return sentence


def _asides(reading: ReadingResult) -> str:
    """Add what a reader must know beside the claim: positions that tell, a target that ignores."""
    out = ""
    shift, effect = reading.metrics.position_effect, reading.metrics.control_effect
    if shift is not None and shift.above_zero:
        out += (
            f" Its own activations at shifted positions cost {shift} more: the decoder also "
            "reads the length of the hidden text."
        )
    if effect is not None and effect.measured:
        holds = "holds" if effect.above_zero else "hardly holds"
        out += (
            f" The target {holds} its control: a completion is {effect} nats likelier under its "
            "own than under another."
        )
    return out


def _instrument_check(reading: ReadingResult) -> str:
    """Word the gains of a view whose control is visible."""
    metrics = reading.metrics
    gains = (
        f"grounded gain {metrics.grounded_gain}; information gain {metrics.information_gain}; "
        f"below untrained {metrics.below_untrained}"
    )
    return (
        f"On {reading.n} controls the control itself is visible: a check of the instrument, not of "
        f"reading ({gains})."
    )
