"""Shifts of activations that make the answers wanted likelier: steepest descent, within limits.

Shapes: B prompts, T tokens of a prompt, n that are read, L layers, N = L * n vectors, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from activation_store.target.capture import Capture
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.gradient import compute_answer_gradient
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt

LEAST_NORM = 1e-12
"""Norm that a gradient or shift of 0 is divided by."""


@dataclass(frozen=True, slots=True)
class PromptShifts:
    """What is added to the activations of prompts.

    Attributes:
        layers: the L blocks at whose outputs it is added.
        shifts: of each prompt, [L, T, D]; 0 where the decoder does not read.
        before: of each prompt, mean answer loss of the activations as they are, in nats a token.
        after: likewise of the shifted ones.
        limited: share of the shifted tokens that are at the limit of their length.
        last_tokens: number of each prompt's last tokens that are shifted; None for all.
    """

    layers: tuple[int, ...]
    shifts: list[torch.Tensor]
    before: list[float]
    after: list[float]
    limited: float
    last_tokens: int | None = None

    def mean(self, prompts: Sequence[SteeringPrompt]) -> list[torch.Tensor]:
        """Average the shifts over the tokens that are shifted; [L, D] of each prompt."""
        return [
            shift[:, prompt.withheld :][:, -(self.last_tokens or 0) :].mean(1)
            for shift, prompt in zip(self.shifts, prompts, strict=True)
        ]


def capture_prompts(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], layers: Sequence[int]
) -> list[list[torch.Tensor]]:
    """Run the target on prompts; return of each its activations [T, D] at each layer."""
    with decoder.without_adapter(), torch.no_grad():
        kept = Capture(decoder.net.get_base_model(), layers)([prompt.ids for prompt in prompts])
    return [
        [kept[layer][i, : len(prompt.ids)].clone() for layer in layers]
        for i, prompt in enumerate(prompts)
    ]


def compute_shifts(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    objective: SteeringObjective,
    config: ActivationSteeringConfig,
) -> PromptShifts:
    """Compute the shifts of prompts' activations.

    Args:
        decoder: whose answers are wanted; its target runs on the prompts.
        prompts: B prompts.
        objective: the answers.
        config: how far.
    """
    layers = decoder.select_layers()
    captured = capture_prompts(decoder, prompts, layers.layers)
    readings = [
        prompt.reading(layers, vectors) for prompt, vectors in zip(prompts, captured, strict=True)
    ]
    descent = Descent(decoder, readings, objective, config)
    descent.run()
    shifts = []
    for prompt, moved in zip(prompts, descent.shifts, strict=True):
        own = moved.new_zeros(len(layers.layers), len(prompt.ids), moved.shape[1])
        own[:, prompt.withheld :] = moved.view(len(layers.layers), -1, moved.shape[1])
        shifts.append(own)
    return PromptShifts(
        layers.layers,
        shifts,
        descent.losses[0],
        descent.losses[-1],
        descent.limited,
        config.last_tokens,
    )


class Descent:
    """Steepest descent of the answer loss of readings, each within its own limits.

    A step is `step_size` times the median length of a row's activations, root mean square over its
    vectors, whatever the gradient's length.

    Attributes:
        shifts: of each reading, [N, D].
        losses: before each step and after the last, of each reading, its mean answer loss.
    """

    def __init__(
        self,
        decoder: Decoder,
        readings: Sequence[Reading],
        objective: SteeringObjective,
        config: ActivationSteeringConfig,
    ) -> None:
        self._decoder, self._objective, self._config = decoder, objective, config
        self._readings = readings
        self._start = [
            torch.as_tensor(reading.vectors).to(decoder.device, torch.float32)
            for reading in readings
        ]
        self.shifts = [torch.zeros_like(vectors) for vectors in self._start]
        self.losses: list[list[float]] = []

    def run(self) -> None:
        """Take all steps, and measure the loss after the last."""
        for _ in range(self._config.steps):
            for i, gradient in enumerate(self._gradients()):
                self._move(i, gradient)
        self._gradients()

    def _gradients(self) -> list[torch.Tensor]:
        turns = self._objective.all_turns
        moved = [start + shift for start, shift in zip(self._start, self.shifts, strict=True)]
        copies = [copy for vectors in moved for copy in self._copies(vectors)]
        each = len(copies) // len(moved)
        found = compute_answer_gradient(
            self._decoder,
            [replace(self._readings[i // each], vectors=copy) for i, copy in enumerate(copies)],
            [turns] * len(copies),
        )
        # the first copy is without noise
        self.losses.append([sum(own) / len(own) for own in found.losses[::each]])
        return [
            torch.stack(found.gradients[i : i + each]).mean(0) for i in range(0, len(copies), each)
        ]

    def _copies(self, vectors_ND: torch.Tensor) -> list[torch.Tensor]:
        """Copy vectors with noise on all but the first; the same noise in any batch."""
        config = self._config
        if not config.smoothing:
            return [vectors_ND]
        draw = torch.Generator().manual_seed(len(self.losses))
        size = config.smoothing * vectors_ND.norm(dim=-1, keepdim=True) / vectors_ND.shape[1] ** 0.5
        noise = [
            torch.randn(vectors_ND.shape, generator=draw).to(vectors_ND)
            for _ in range(config.copies - 1)
        ]
        return [vectors_ND, *(vectors_ND + size * own for own in noise)]

    def _move(self, i: int, gradient_ND: torch.Tensor) -> None:
        last = self._config.last_tokens
        if last is not None:
            runs = gradient_ND.view(-1, self._readings[i].n, gradient_ND.shape[1]).clone()
            runs[:, :-last] = 0
            gradient_ND = runs.view_as(gradient_ND)
        lengths_N1 = self._start[i].norm(dim=-1, keepdim=True)
        # clamped, so that a gradient of 0 moves nothing
        moved = len(gradient_ND) if last is None else min(last, self._readings[i].n)
        size = gradient_ND.norm().clamp_min(LEAST_NORM) / moved**0.5
        step = self._config.step_size * lengths_N1.median() / size
        self.shifts[i] = limit_lengths(
            self.shifts[i] - step * gradient_ND, self._config.norm_limit * lengths_N1
        )

    @property
    def limited(self) -> float:
        """Share of the vectors whose shift is at the limit of its length."""
        at = [
            shift.norm(dim=-1) > 0.999 * self._config.norm_limit * start.norm(dim=-1)
            for shift, start in zip(self.shifts, self._start, strict=True)
        ]
        return float(torch.cat(at).float().mean())


def limit_lengths(vectors_ND: torch.Tensor, limits_N1: torch.Tensor) -> torch.Tensor:
    """Shorten the vectors that are longer than their limit to it."""
    lengths_N1 = vectors_ND.norm(dim=-1, keepdim=True).clamp_min(LEAST_NORM)
    limited: torch.Tensor = vectors_ND * (limits_N1 / lengths_N1).clamp_max(1.0)
    return limited
