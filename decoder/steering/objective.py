"""What steering lowers: the decoder's loss of the answers that controls want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from core.records.steering_control import SteeringControl
from decoder.model import Decoder
from decoder.sources.target_run import refuse_differences
from decoder.steering.gradient import WeightedTurn


@dataclass(frozen=True, slots=True)
class SteeringObjective:
    """Controls with their weights, as turns of the decoder's prompt.

    Attributes:
        controls: what the target is to become.
        weights: of each control; below 0 the target is to become less of it.
        turns: of each control, its questions; their weights make up the control's.
    """

    controls: tuple[SteeringControl, ...]
    weights: tuple[float, ...]
    turns: tuple[tuple[WeightedTurn, ...], ...]

    @property
    def all_turns(self) -> tuple[WeightedTurn, ...]:
        """The questions of all controls."""
        return tuple(turn for own in self.turns for turn in own)

    @property
    def name(self) -> str:
        """Names of the controls, with their weights where these are not 1."""
        return "+".join(
            control.control if weight == 1 else f"{weight:g}*{control.control}"
            for control, weight in zip(self.controls, self.weights, strict=True)
        )


def make_objective(
    decoder: Decoder, controls: Sequence[SteeringControl], weights: Sequence[float] = ()
) -> SteeringObjective:
    """Tokenize the questions of controls.

    Args:
        decoder: is asked them.
        controls: at least one.
        weights: of each; 1 where none are given.

    Raises:
        ConfigError: there is no control, a weight is 0, or they are not as many as the controls.
        DataError: the decoder's template refuses a question or an answer.
    """
    refuse_differences(decoder)
    if not controls:
        raise ConfigError("steer: got no control, expected at least one.")
    given = tuple(weights) or (1.0,) * len(controls)
    if len(given) != len(controls) or not all(given):
        raise ConfigError(
            f"steer: got weights {list(given)} for {len(controls)} control(s); expected one that "
            "is not 0 for each."
        )
    turns = tuple(
        tuple(
            WeightedTurn(
                decoder.prompt.turn(wanted.question, wanted.answer),
                weight / len(control.questions),
            )
            for wanted in control.questions
        )
        for control, weight in zip(controls, given, strict=True)
    )
    return SteeringObjective(tuple(controls), given, turns)
