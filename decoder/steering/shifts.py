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
from decoder.steering.geometry import LEAST_NORM, Geometry, limit_lengths
from decoder.steering.gradient import take_gradient
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt

_MOMENTUM = 0.5


@dataclass(frozen=True, slots=True)
class PromptShifts:
    """Vectors that are added to the activations of prompts, token by token.

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
            shift[:, prompt.unread :][:, -(self.last_tokens or 0) :].mean(1)
            for shift, prompt in zip(self.shifts, prompts, strict=True)
        ]


def capture_prompts(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], layers: Sequence[int]
) -> list[list[torch.Tensor]]:
    """Run the target on prompts; return of each its activations [T, D] at each layer."""
    with decoder.without_adapter(), torch.no_grad():
        kept = Capture(decoder.net.get_base_model(), layers)([prompt.ids for prompt in prompts])
    return [
        [kept[layer][i, : len(prompt.ids)].to(decoder.device, copy=True) for layer in layers]
        for i, prompt in enumerate(prompts)
    ]


def read_prompts(decoder: Decoder, prompts: Sequence[SteeringPrompt]) -> list[Reading]:
    """Run the target on prompts; return of each what the decoder reads of its activations."""
    layers = decoder.select_layers()
    captured = capture_prompts(decoder, prompts, layers.layers)
    return [
        prompt.reading(layers, vectors) for prompt, vectors in zip(prompts, captured, strict=True)
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
    layers = decoder.select_layers().layers
    descent = Descent(decoder, read_prompts(decoder, prompts), objective, config)
    descent.run()
    losses, shifts = descent.losses, []
    for prompt, moved in zip(prompts, descent.shifts, strict=True):
        own = moved.new_zeros(len(layers), len(prompt.ids), moved.shape[1])
        own[:, prompt.unread :] = moved.view(len(layers), -1, moved.shape[1])
        shifts.append(own)
    return PromptShifts(
        layers,
        shifts,
        losses[0],
        losses[-1],
        descent.limited,
        config.last_tokens,
    )


class Descent:
    """Steepest descent of the answer loss of readings, each within its own limits.

    A step is `step_size` times the median length of a row's activations, root mean square over its
    vectors, whatever the gradient's length. Lengths are those of `Geometry`.

    Attributes:
        shifts: of each reading, [N, D].
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
        self._geometry = Geometry.of(decoder)
        self._start = [
            torch.as_tensor(reading.vectors).to(decoder.device, torch.float32)
            for reading in readings
        ]
        self._lengths = [self._geometry.lengths(vectors) for vectors in self._start]
        self.shifts = [torch.zeros_like(vectors) for vectors in self._start]
        self._losses: list[torch.Tensor] = []

    def run(self) -> None:
        """Take all steps, and measure the loss after the last."""
        for _ in range(self._config.steps):
            for i, gradient in enumerate(self.gradients()):
                self._move(i, gradient)
        self.gradients()

    def gradients(self) -> list[torch.Tensor]:
        """Compute the gradient [N, D] of each reading where its shift has brought it."""
        turns = self._objective.all_turns
        moved = [start + shift for start, shift in zip(self._start, self.shifts, strict=True)]
        copies = [copy for i in range(len(moved)) for copy in self._copies(i, moved[i])]
        each = len(copies) // len(moved)
        losses_Q, _, found = take_gradient(
            self._decoder,
            [replace(self._readings[i // each], vectors=copy) for i, copy in enumerate(copies)],
            [turns] * len(copies),
        )
        # the first copy is without noise
        self._losses.append(losses_Q.view(len(copies), -1)[::each])
        return [torch.stack(found[i : i + each]).mean(0) for i in range(0, len(copies), each)]

    @property
    def losses(self) -> list[list[float]]:
        """Mean answer loss of each reading, before each step and after the last."""
        read: list[list[float]] = torch.stack(self._losses).cpu().double().mean(-1).tolist()
        return read

    def _copies(self, i: int, vectors_ND: torch.Tensor) -> list[torch.Tensor]:
        """Copy vectors with noise on all but the first; the same noise in any batch."""
        config = self._config
        if not config.smoothing:
            return [vectors_ND]
        draw = torch.Generator().manual_seed(len(self._losses))
        unit = self._geometry.unit_of(self._readings[i].n)
        size = config.smoothing * self._lengths[i] / vectors_ND.shape[1] ** 0.5
        noise = [
            torch.randn(vectors_ND.shape, generator=draw).to(vectors_ND)
            for _ in range(config.copies - 1)
        ]
        return [vectors_ND, *(vectors_ND + size * unit * own for own in noise)]

    def _move(self, i: int, gradient_ND: torch.Tensor) -> None:
        last, n = self._config.last_tokens, self._readings[i].n
        unit = self._geometry.unit_of(n)
        slope_ND = self._geometry.slope(gradient_ND)
        if last is not None:
            runs = slope_ND.view(-1, n, slope_ND.shape[1]).clone()
            runs[:, :-last] = 0
            slope_ND = runs.view_as(slope_ND)
        # clamped, so that a gradient of 0 moves nothing
        moved = len(slope_ND) if last is None else min(last, n)
        size = slope_ND.norm().clamp_min(LEAST_NORM) / moved**0.5
        step = self._config.step_size * self._lengths[i].median() / size
        self.shifts[i] = unit * limit_lengths(
            self.shifts[i] / unit - step * slope_ND, self._config.norm_limit * self._lengths[i]
        )

    @property
    def limited(self) -> float:
        """Share of the vectors whose shift is at the limit of its length."""
        at = [
            (shift / self._geometry.unit_of(reading.n)).norm(dim=-1, keepdim=True)
            > 0.999 * self._config.norm_limit * lengths
            for shift, reading, lengths in zip(
                self.shifts, self._readings, self._lengths, strict=True
            )
        ]
        return float(torch.cat(at).float().mean().cpu())


@dataclass(frozen=True, slots=True)
class CommonShift:
    """One shift of each layer for all tokens of all prompts.

    Attributes:
        vectors: [L, D].
        before: mean answer loss of the activations as they are, in nats a token.
        after: likewise of the shifted ones.
        limited: whether it is at the limit of its length.
    """

    vectors: torch.Tensor
    before: float
    after: float
    limited: bool


def compute_common_shift(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    objective: SteeringObjective,
    config: ActivationSteeringConfig,
) -> CommonShift:
    """Compute the one shift that makes the answers wanted likelier over prompts.

    The gradient is averaged over the tokens of all prompts before each step: shifts of their own,
    averaged afterwards, point in as many ways as there are tokens and leave next to nothing. A step
    goes the way of this gradient and, by half, of those before it.

    Args:
        decoder: whose answers are wanted; its target runs on the prompts.
        prompts: B prompts.
        objective: the answers.
        config: `vector_steps`, `step_size`, `norm_limit` and `smoothing`.
    """
    geometry, readings = Geometry.of(decoder), read_prompts(decoder, prompts)
    descent = Descent(decoder, readings, objective, config)
    size = torch.cat([geometry.lengths(torch.as_tensor(r.vectors)) for r in readings]).median()
    common_LD = torch.zeros_like(geometry.unit_LD)
    heading_LD = torch.zeros_like(common_LD)
    for _ in range(config.vector_steps):
        means = [g.view(*common_LD.shape[:1], -1, g.shape[1]).mean(1) for g in descent.gradients()]
        slope_LD = geometry.slope(torch.stack(means).mean(0))
        heading_LD = _MOMENTUM * heading_LD + slope_LD / slope_LD.norm().clamp_min(LEAST_NORM)
        way_LD = heading_LD / heading_LD.norm().clamp_min(LEAST_NORM) * len(common_LD) ** 0.5
        common_LD = limit_lengths(
            common_LD - config.step_size * size * way_LD, config.norm_limit * size
        )
        raw_LD = common_LD * geometry.unit_LD
        descent.shifts = [raw_LD.repeat_interleave(reading.n, 0) for reading in readings]
    descent.gradients()
    before, *_, after = (sum(own) / len(own) for own in descent.losses)
    lengths = common_LD.norm(dim=-1)
    return CommonShift(
        vectors=common_LD * geometry.unit_LD,
        before=before,
        after=after,
        limited=bool((lengths > 0.999 * config.norm_limit * size).any().cpu()),
    )
