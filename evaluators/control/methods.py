"""Ways to steer a target towards a control, each made once and usable at any strength.

Shapes: P prompts, L layers, D d_model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from activation_store.target.generation import Sampling
from core.records.steering_control import SteeringControl
from decoder.model import Decoder
from decoder.steering.objective import SteeringObjective, make_objective
from decoder.steering.prompts import SteeringPrompt, make_steering_prompt
from decoder.steering.replies import (
    SteeredReply,
    Steering,
    follow_by_replies,
    write_replies,
)
from decoder.steering.shifts import capture_prompts, compute_common_shift, compute_shifts
from decoder.steering.vectors import SteeringVector
from evaluators.control.config import ControlSection, Method
from evaluators.control.prompts import PromptSets
from generators.rules.obedience import adherence
from trainers.steering.adapter import STEER, scaled_adapter
from trainers.steering.loop import AdapterTraining
from trainers.steering.reply_tuning import train_reply_adapter
from trainers.steering.weights import train_steering_adapter

SFT = "sft"
_BATCH = 8
_SEEDS_APART = 1_000_003
"""Step between the seeds of attempts."""
_TEMPERATURE = 0.7
"""Of replies under the control after the first, greedy one."""
_LEAST_FALL = 1e-3
"""Fall of the loss below which a gradient is taken for dead, in nats a token."""

PromptMaker = Callable[[str], SteeringPrompt]
"""Makes the prompt that a method gives the target of what a user says."""


@dataclass(frozen=True, kw_only=True)
class SteeringMethod:
    """A way to steer.

    Attributes:
        name: which.
        prompt_maker: how it gives the target what a user says, by strength.
        at: opens the steering at a strength.
        strengths: those that are tried.
        training: the result of training an adapter, or None.
        vector: the vector, or None.
        wordings: system prompts that are tried, the first at strength 1.
        notes: signs that it cannot work, in words.
    """

    name: str
    prompt_maker: Callable[[float], PromptMaker]
    at: Callable[[float], contextlib.AbstractContextManager[Steering]]
    strengths: tuple[float, ...]
    training: AdapterTraining | None = None
    vector: SteeringVector | None = None
    wordings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class MethodMaker:
    """Makes the methods of one control."""

    def __init__(
        self,
        decoder: Decoder,
        control: SteeringControl,
        prompts: PromptSets,
        config: ControlSection,
    ) -> None:
        self._decoder, self._control, self._config = decoder, control, config
        self._sets = prompts
        self._objective: SteeringObjective = make_objective(decoder, [control])
        self._plain = [make_steering_prompt(decoder, text) for text in prompts.train]
        self._held_out = [make_steering_prompt(decoder, text) for text in prompts.validation]

    def plain_prompt(self, text: str) -> SteeringPrompt:
        """Make the prompt of a target that is told nothing."""
        return make_steering_prompt(self._decoder, text)

    def told_prompt(self, text: str) -> SteeringPrompt:
        """Make the prompt of a target whose system prompt says the control."""
        return make_steering_prompt(self._decoder, text, system=self._control.system_prompt)

    def make(self, method: Method) -> SteeringMethod:
        """Make the steering that a method of comparison stands for."""
        return {
            "prompting": self._prompting,
            "activations": self._activations,
            "vector": self._gradient_vector,
            "weights": self._weights,
            "difference": self._difference,
            "reading_vector": self._reading_vector,
            "sft": self._sft,
        }[method]()

    def _prompting(self) -> SteeringMethod:
        """Say the control in a system prompt; its strengths are the numbers of its wordings."""
        wordings = self._control.wordings[: len(self._config.strengths)]

        def maker(strength: float) -> PromptMaker:
            wording = wordings[int(strength) - 1]
            return functools.partial(make_steering_prompt, self._decoder, system=wording)

        return SteeringMethod(
            name="prompting",
            prompt_maker=maker,
            at=lambda strength: contextlib.nullcontext(Steering()),
            strengths=tuple(float(number + 1) for number in range(len(wordings))),
            wordings=wordings,
        )

    def _plain_maker(self, strength: float) -> PromptMaker:
        return self.plain_prompt

    def _activations(self) -> SteeringMethod:
        own = self._config.activations

        def at(strength: float) -> contextlib.AbstractContextManager[Steering]:
            config = own.model_copy(
                update={
                    "step_size": own.step_size * strength,
                    "norm_limit": own.norm_limit * strength,
                }
            )
            return contextlib.nullcontext(Steering(objective=self._objective, config=config))

        shifts = compute_shifts(self._decoder, self._plain[:_BATCH], self._objective, own)
        fall = float(np.mean(shifts.before) - np.mean(shifts.after))
        notes = []
        if fall < _LEAST_FALL:
            notes.append(f"dead gradient: the steps lower the loss by {fall:.4f} nats a token")
        if shifts.limited > 0.5:
            notes.append(f"norm-limited: {shifts.limited:.0%} of the shifts are at norm_limit")
        return SteeringMethod(
            name="activations",
            prompt_maker=self._plain_maker,
            at=at,
            strengths=self._config.strengths,
            notes=tuple(notes),
        )

    def _by_vector(
        self, name: str, vector_LD: torch.Tensor, notes: Sequence[str] = ()
    ) -> SteeringMethod:
        layers = self._decoder.select_layers().layers
        vector = SteeringVector(
            layers=dict(zip(layers, vector_LD, strict=True)),
            method=name,
            target=self._decoder.binding.target,
            about={"control": self._control.control, "prompts": str(len(self._plain))},
        )
        return SteeringMethod(
            name=name,
            prompt_maker=self._plain_maker,
            at=lambda strength: contextlib.nullcontext(Steering(vector=vector.scaled(strength))),
            strengths=self._config.strengths,
            vector=vector,
            notes=tuple(notes),
        )

    def _gradient_vector(self) -> SteeringMethod:
        own = self._config.activations
        tokens = self._decoder.config.last_tokens or 0
        read = follow_by_replies(self._decoder, self._plain, self._plain, tokens)
        found = compute_common_shift(self._decoder, read, self._objective, own)
        fall = found.before - found.after
        notes = []
        if fall < _LEAST_FALL:
            notes.append(f"dead gradient: the steps lower the loss by {fall:.4f} nats a token")
        if found.limited:
            notes.append("norm-limited: the vector is at norm_limit")
        return self._by_vector("vector", found.vectors, notes)

    def _differences(self) -> torch.Tensor:
        """Compute mean activations of replies under the control, less those of others; [P, L, D].

        The target reads both behind the plain prompt: what a system prompt leaves in activations
        beside the reply need not move a reply (docs/control.md).
        """
        told = self._mean_activations(self._replies_under_control(self._sets.train))
        plain = self._replies_to(self._sets.train, self.plain_prompt)
        return told - self._mean_activations([reply.ids for reply in plain])

    def _mean_activations(self, replies: Sequence[Sequence[int]]) -> torch.Tensor:
        """Average activations over each reply's tokens, behind its plain prompt; [P, L, D]."""
        layers = self._decoder.select_layers().layers
        found = []
        for start in range(0, len(replies), _BATCH):
            prompts = self._plain[start : start + _BATCH]
            whole = [
                prompt.followed_by(ids)
                for prompt, ids in zip(prompts, replies[start : start + _BATCH], strict=True)
            ]
            for prompt, vectors in zip(
                prompts, capture_prompts(self._decoder, whole, layers), strict=True
            ):
                replied = [own[len(prompt.ids) :].float().mean(0) for own in vectors]
                found.append(torch.stack(replied))
        return torch.stack(found)

    def _replies_under_control(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Reply to each prompt under the control; keep the attempt with the highest adherence."""
        check = self._control.check
        if check is None or self._config.reply_attempts == 1:  # nothing ranks, or nothing to rank
            return [reply.ids for reply in self._replies_to(texts, self.told_prompt)]
        attempts = [
            self._replies_to(texts, self.told_prompt, attempt)
            for attempt in range(self._config.reply_attempts)
        ]
        return [
            max(own, key=lambda reply: adherence(reply.text, check)).ids
            for own in zip(*attempts, strict=True)
        ]

    def _replies_to(
        self, texts: Sequence[str], make: PromptMaker, attempt: int = 0
    ) -> list[SteeredReply]:
        """Let the unsteered target reply to what users say: greedily at first, else sampled."""
        found: list[SteeredReply] = []
        for start in range(0, len(texts), _BATCH):
            prompts = [make(text) for text in texts[start : start + _BATCH]]
            sampling = Sampling(
                max_tokens=self._config.max_tokens,
                temperature=_TEMPERATURE if attempt else 0.0,
                seed=self._config.seed + attempt * _SEEDS_APART + start,
            )
            found += write_replies(self._decoder, prompts, Steering(), sampling)
        return found

    def _difference(self) -> SteeringMethod:
        return self._by_vector("difference", self._differences().mean(0))

    def _reading_vector(self) -> SteeringMethod:
        """Make the first principal component of the differences (Zou et al. 2023, RepE).

        It points the way of their mean, and is as long.
        """
        differences_PLD = self._differences()
        mean_LD = differences_PLD.mean(0)
        vectors = []
        for layer in range(differences_PLD.shape[1]):
            own = differences_PLD[:, layer].cpu().double().numpy()
            # differences of either sign, as RepE takes them, so that the mean is the component
            signed = np.concatenate([own, -own])
            component = torch.from_numpy(PCA(n_components=1).fit(signed).components_[0])
            component = component.to(mean_LD)
            mean = mean_LD[layer]
            sign = 1.0 if float(component @ mean) >= 0 else -1.0
            vectors.append(sign * mean.norm() * component)
        return self._by_vector("reading_vector", torch.stack(vectors))

    def _adapter(self, name: str, adapter: str, training: AdapterTraining) -> SteeringMethod:
        @contextlib.contextmanager
        def at(strength: float) -> Iterator[Steering]:
            with scaled_adapter(self._decoder, adapter, strength):
                yield Steering(adapter=adapter)

        notes = []
        if training.gradient_norm < 1e-6:
            notes.append("dead gradient: the first step's gradient is 0")
        if training.best_step == 0:
            notes.append("training never lowered the loss on held-out prompts")
        return SteeringMethod(
            name=name,
            prompt_maker=self._plain_maker,
            at=at,
            strengths=self._config.strengths,
            training=training,
            notes=tuple(notes),
        )

    def _weights(self) -> SteeringMethod:
        training = train_steering_adapter(
            self._decoder,
            self._plain,
            self._held_out,
            self._objective,
            self._config.weights,
            unrelated=[self.plain_prompt(text) for text in self._sets.unrelated],
        )
        return self._adapter("weights", STEER, training)

    def _sft(self) -> SteeringMethod:
        def rows(texts: Sequence[str]) -> list[tuple[SteeringPrompt, Sequence[int]]]:
            replies = self._replies_under_control(texts)
            return [
                (self.plain_prompt(text), ids) for text, ids in zip(texts, replies, strict=True)
            ]

        training = train_reply_adapter(
            self._decoder,
            rows(self._sets.train),
            rows(self._sets.validation),
            self._config.weights,
            name=SFT,
        )
        return self._adapter("sft", SFT, training)


def describe_training(method: SteeringMethod) -> dict[str, Any] | None:
    """Return the result of training an adapter, as plain JSON types."""
    return None if method.training is None else method.training.to_json()
