"""Steering of a decoder's target outside an experiment: one way to steer, and what it replies."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from activation_store.target.generation import Sampling
from core.errors import ConfigError, DataError, ModelError, first_line
from core.records.steering_control import SteeringControl, WantedAnswer
from decoder.model import Decoder
from decoder.steering.objective import make_objective
from decoder.steering.prompts import make_steering_prompt
from decoder.steering.replies import SteeredReply, Steering, write_replies
from decoder.steering.vectors import SteeringVector
from evaluators.control.config import ControlSection
from evaluators.control.methods import MethodMaker, SteeringMethod
from evaluators.control.prompts import draw_prompts
from pipelines.asking.reader import Reader
from pipelines.experiment.config import build_experiment
from trainers.steering.adapter import (
    STEER,
    remove_steering_adapter,
    save_steering_adapter,
    scaled_adapter,
)

SteeringWay = Literal["activations", "vector", "weights"]
"""By the gradient at each prompt, by its mean over ordinary prompts, or by a LoRA adapter."""

_SHORT = Sampling(max_tokens=60)
QUESTIONS = (
    "What persona has the assistant been given?",
    "How does the assistant speak to the user?",
    "How would the assistant reply?",
)
"""What a decoder is asked of a prompt that a control is read from."""


@dataclass(frozen=True, kw_only=True)
class SteeredTarget:
    """A target that is steered one way while its context is open.

    Attributes:
        decoder: whose target it is.
        steering: how.
        notes: signs that it cannot work, in words.
        vector: what is added to activations, where that is the way.
    """

    decoder: Decoder
    steering: Steering
    notes: tuple[str, ...] = ()
    vector: SteeringVector | None = None

    def reply(
        self,
        prompt: str,
        *,
        system: str | None = None,
        sampling: Sampling = _SHORT,
        tell: Callable[[str], None] | None = None,
    ) -> SteeredReply:
        """Write a reply to what a user says.

        Args:
            prompt: what the user says.
            system: a system prompt before it.
            sampling: how tokens are chosen.
            tell: called with each new piece of the text.

        Raises:
            DataError: a text is empty, or holds one of the model's control tokens.
        """
        made = make_steering_prompt(self.decoder, prompt, system=system)
        listener = None if tell is None else _TextListener(self.decoder.tokenizer, tell)
        (reply,) = write_replies(self.decoder, [made], self.steering, sampling, tell=listener)
        if listener is not None:
            listener.finish()
        return reply

    def unsteered(
        self,
        prompt: str,
        *,
        system: str | None = None,
        sampling: Sampling = _SHORT,
        tell: Callable[[str], None] | None = None,
    ) -> SteeredReply:
        """Write the reply of the target as it is; arguments as for `reply`."""
        plain = SteeredTarget(decoder=self.decoder, steering=Steering())
        return plain.reply(prompt, system=system, sampling=sampling, tell=tell)


class _TextListener:
    """Hands on what each new token adds to the text; whole characters alone."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], None]) -> None:
        self._tokenizer, self._tell = tokenizer, tell
        self._ids: list[int] = []
        self._told = 0

    def __call__(self, token: int) -> None:
        self._ids.append(token)
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if not text.endswith("�"):
            self._tell_rest(text)

    def finish(self) -> None:
        """Hand on what is left, a broken character at the end too."""
        self._tell_rest(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _tell_rest(self, text: str) -> None:
        if len(text) > self._told:
            self._tell(text[self._told :])
            self._told = len(text)


def steering_settings(overrides: Sequence[str]) -> ControlSection:
    """Read settings of the section `control` from overrides such as `control.activations.steps=8`.

    Raises:
        ConfigError: one names another section or no field of it, or has no valid value.
    """
    for override in overrides:
        if not override.strip().startswith("control."):
            raise ConfigError(
                f"--set {override}: expected a field of control, such as "
                "control.activations.steps=8."
            )
    sections = {"experiment": "steer", "data": {"path": "."}, "control": {}}
    found = build_experiment(sections, "steer", overrides).control
    assert found is not None
    return found


@contextlib.contextmanager
def steer(
    reader: Reader,
    controls: Sequence[SteeringControl],
    *,
    weights: Sequence[float] = (),
    by: SteeringWay = "activations",
    strength: float = 1.0,
    config: ControlSection | None = None,
    save_to: Path | None = None,
) -> Iterator[SteeredTarget]:
    """Steer a decoder's target towards controls while the context is open.

    Args:
        reader: the decoder with its target.
        controls: what the target is to become; several by `activations` alone.
        weights: of each control; below 0 the target is to become less of it.
        by: which way.
        strength: multiple of what the way makes of itself.
        config: its settings, and the ordinary prompts of `vector` and `weights`.
        save_to: receives the vector (a safetensors file) or the adapter (a peft folder).

    Raises:
        ConfigError: the arguments do not go together.
    """
    config = config or ControlSection()
    decoder = reader.decoder
    if reader.foreign is not None:
        raise ConfigError("steer: got a foreign target, expected the decoder's own target.")
    _check_strength(strength)
    if by == "activations" and save_to is not None:
        raise ConfigError(
            "steer: --by activations makes nothing to save, expected --by vector or --by weights."
        )
    if by != "activations" and (len(controls) != 1 or tuple(weights) not in ((), (1.0,))):
        raise ConfigError(
            f"steer: got --by {by} and controls with weights "
            f"{list(weights) or [1.0] * len(controls)}, expected one control with weight 1. "
            "Use --by activations for several controls or other weights."
        )
    decoder.ask_layer(config.read_layer, "control.read_layer")
    try:
        if by == "activations":
            own = config.activations
            scaled = own.model_copy(
                update={
                    "step_size": own.step_size * strength,
                    "norm_limit": own.norm_limit * strength,
                }
            )
            gradient = Steering(objective=make_objective(decoder, controls, weights), config=scaled)
            yield SteeredTarget(decoder=decoder, steering=gradient)
            return
        method = MethodMaker(decoder, controls[0], draw_prompts(config), config).make(by)
        if save_to is not None:
            _save(decoder, method, controls[0], save_to)
        with method.at(strength) as steering:
            yield SteeredTarget(
                decoder=decoder, steering=steering, notes=method.notes, vector=method.vector
            )
    finally:
        decoder.ask_layer(None)
        remove_steering_adapter(decoder, STEER)


def _check_strength(strength: float) -> None:
    if not 0 < strength < math.inf:
        raise ConfigError(f"steer: got strength {strength:g}, expected one above 0.")


def _save(decoder: Decoder, method: SteeringMethod, control: SteeringControl, path: Path) -> None:
    if method.vector is not None:
        method.vector.save(path)
    else:
        assert method.training is not None
        about = {"control": control.control, "training": method.training.to_json()}
        save_steering_adapter(decoder, path, about)


@contextlib.contextmanager
def steer_with_file(
    reader: Reader, path: Path, *, strength: float = 1.0
) -> Iterator[SteeredTarget]:
    """Steer a target with a saved vector or adapter while the context is open.

    Args:
        reader: the decoder whose target is steered.
        path: a safetensors file of a steering vector, or a peft folder.
        strength: multiple of it.

    Raises:
        ModelError: it is neither, or is of another target.
        ConfigError: the strength is not above 0.
    """
    _check_strength(strength)
    if not path.exists():
        raise ModelError(
            f"{path}: no such file; expected a steering vector (a file) or an adapter (a folder)."
        )
    decoder = reader.decoder
    if path.is_dir():
        if not (path / "adapter_config.json").is_file():
            raise ModelError(f"adapter {path}: not a peft adapter (no adapter_config.json).")
        try:
            remove_steering_adapter(decoder, STEER)
            decoder.net.load_adapter(str(path), STEER)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"adapter {path}: peft cannot load it into this target ({first_line(error)})."
            ) from error
        decoder.net.requires_grad_(False)
        try:
            with scaled_adapter(decoder, STEER, strength):
                yield SteeredTarget(decoder=decoder, steering=Steering(adapter=STEER))
        finally:
            remove_steering_adapter(decoder, STEER)
        return
    vector = SteeringVector.load(path)
    vector.check_target(decoder.binding.target)
    shape = decoder.shape
    for block, values in vector.layers.items():
        shape.layer(block, "the vector's layer")
        if len(values) != shape.d_model:
            raise ModelError(
                f"steering vector {path}: d_model {len(values)}, the target has {shape.d_model}."
            )
    scaled = vector.scaled(strength)
    yield SteeredTarget(decoder=decoder, steering=Steering(vector=scaled), vector=scaled)


def infer_control(
    reader: Reader, prompt: str, *, questions: Sequence[str] = QUESTIONS
) -> SteeringControl:
    """Read a control off a prompt: the decoder's own answers are what steering will want.

    Args:
        reader: the decoder with its target.
        prompt: what sets the target's state.
        questions: what the decoder is asked of it.

    Raises:
        DataError: a text is empty, or the decoder answered nothing.
    """
    asked = reader.ask_all(prompt, list(questions))
    wanted = tuple(
        WantedAnswer(question=question, answer=answer.text)
        for question, answer in zip(questions, asked.answers, strict=True)
        if answer.text.strip()
    )
    if not wanted:
        raise DataError(
            "steer: the decoder gave empty answers about the prompt. Ask other questions."
        )
    return SteeringControl(control="read", description=prompt, questions=wanted)
