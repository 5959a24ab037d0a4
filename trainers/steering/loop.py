"""The loop that trains an adapter of the target, and keeps the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from trainers.steering.config import WeightSteeringConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterTraining:
    """Losses, best step and gradients of an adapter's training.

    Attributes:
        losses: of each step, mean answer loss in nats per token.
        validation: (step, mean answer loss of held-out prompts), the first before training.
        best_step: the step whose weights are kept.
        gradient_norm: of the first step, before clipping; 0 is a dead gradient.
    """

    losses: list[float]
    validation: list[tuple[int, float]]
    best_step: int
    gradient_norm: float

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


def train_adapter(
    weights: Sequence[torch.nn.Parameter],
    loss_of: Callable[[Sequence[int], int], torch.Tensor],
    check: Callable[[], float],
    config: WeightSteeringConfig,
    *,
    rows: int,
) -> AdapterTraining:
    """Train adapter weights by AdamW, and restore those with the lowest validation loss."""
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    losses: list[torch.Tensor] = []
    found: list[tuple[int, float]] = [(0, check())]
    best, kept = 0, [weight.detach().clone() for weight in weights]
    norms: list[torch.Tensor] = []
    order = _order(rows, config)
    for step in range(1, config.steps + 1):
        loss = loss_of(next(order), step)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norms.append(torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm))
        optimiser.step()
        losses.append(loss.detach())
        if step % config.evaluate_every == 0 or step == config.steps:
            found.append((step, check()))
            if found[-1][1] < min(value for _, value in found[:-1]):
                best, kept = step, [weight.detach().clone() for weight in weights]
            elif len(found) > config.patience and best <= found[-1 - config.patience][0]:
                break
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
            weight.requires_grad_(False)
    return AdapterTraining(
        losses=torch.stack(losses).cpu().tolist(),
        validation=found,
        best_step=best,
        gradient_norm=float(norms[0].cpu()),
    )


def _order(n: int, config: WeightSteeringConfig) -> Iterator[list[int]]:
    """Draw the prompts of each step: every prompt once before any comes again."""
    draw = np.random.default_rng(config.seed)
    queue: list[int] = []
    while True:
        while len(queue) < config.prompts_per_step:
            queue += draw.permutation(n).tolist()
        yield queue[: config.prompts_per_step]
        del queue[: config.prompts_per_step]
