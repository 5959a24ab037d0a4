"""The gradient of the decoder's answer loss with respect to the activations that it reads.

`answer_loss` is one differentiable step. Its forward pass reads detached activations with the
decoder's adapter, and takes the gradient at once; its backward pass hands that on to whatever made
the activations (the target under an adapter of its own, a steering vector), whose graph the switch
of adapters never touches. So target and decoder may be one network.

With `add` injection the gradient has no part along an activation: its length cannot be steered.

Shapes: Q questions of all rows, N vectors of a row, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from activation_store.target.host_copy import send
from decoder.adapters import use_adapter
from decoder.batch import batches_by_length, to_device
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.question_prompt import Turn
from decoder.reading import Reading, at_least_float32
from decoder.scoring import BATCH_ROWS, BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class WeightedTurn:
    """A question with the answer that is wanted, and its weight in the loss.

    Attributes:
        turn: tokens of question and answer.
        weight: factor of its answer loss; below 0 the answer is to become less likely.
    """

    turn: Turn
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AnswerGradient:
    """Losses of answers, and their gradient with respect to what they were read from.

    Attributes:
        losses: of each row, the answer loss of each question, in nats per token, unweighted.
        total: sum over all rows and questions of weight times loss.
        gradients: of each row, the gradient [N, D] of `total` with respect to its vectors.
    """

    losses: list[list[float]]
    total: float
    gradients: list[torch.Tensor]


def compute_answer_gradient(
    decoder: Decoder,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[WeightedTurn]],
) -> AnswerGradient:
    """Compute the loss of answers and its gradient with respect to the activations.

    Adapters and flags of the network are afterwards as before; no weight gets a gradient.

    Args:
        decoder: answers, with its own adapter whatever is active.
        readings: rows with vectors, of a store or tensors.
        turns: of each row, its questions; at least one.

    Raises:
        ValueError: a reading has no vectors.
    """
    losses, total, gradients = take_gradient(decoder, readings, turns)
    numbers = iter(torch.cat([losses.flatten(), total[None]]).cpu().tolist())
    return AnswerGradient(
        losses=[[next(numbers) for _ in own] for own in turns],
        total=next(numbers),
        gradients=gradients,
    )


def take_gradient(
    decoder: Decoder,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[WeightedTurn]],
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Compute losses [Q] in the order of `turns`, their weighted sum, and its gradients.

    As `compute_answer_gradient`, but all stay on the device; nothing waits for it.
    """
    leaves = []
    for reading in readings:
        if reading.vectors is None:
            raise ValueError("a reading without vectors has no gradient")
        own = at_least_float32(send(torch.as_tensor(reading.vectors).detach(), decoder.device))
        # a tensor of inference mode takes no part in a graph: a copy does
        leaves.append(own.clone().requires_grad_())
    sizes = [
        r.n + sum(len(t.turn.ids) for t in own) for r, own in zip(readings, turns, strict=True)
    ]
    losses: list[list[torch.Tensor]] = [[] for _ in readings]
    gradients: list[torch.Tensor] = list(leaves)
    totals: list[torch.Tensor] = []
    with use_adapter(decoder.net, decoder.adapter), torch.inference_mode(False):
        for rows in batches_by_length(sizes, rows=BATCH_ROWS, tokens=BATCH_TOKENS):
            with torch.enable_grad():
                found = _losses(decoder, [(readings[i], leaves[i], turns[i]) for i in rows])
                weights = torch.tensor(
                    [t.weight for i in rows for t in turns[i]], dtype=found.dtype
                )
                total = (found * send(weights, found.device)).sum()
                taken = torch.autograd.grad(total, [leaves[i] for i in rows])
            totals.append(total.detach())
            at = 0
            for i, gradient in zip(rows, taken, strict=True):
                gradients[i] = gradient
                losses[i] = list(found.detach()[at : at + len(turns[i])])
                at += len(turns[i])
    flat = torch.stack([loss for own in losses for loss in own])
    return flat, torch.stack(totals).sum(), gradients


def _losses(
    decoder: Decoder, rows: Sequence[tuple[Reading, torch.Tensor, Sequence[WeightedTurn]]]
) -> torch.Tensor:
    """Compute the losses [Q] of rows, whose vectors are leaves of the graph."""
    batch = make_loss_batch(
        decoder.prompt,
        [replace(reading, vectors=leaf) for reading, leaf, _ in rows],
        [[own.turn for own in turns] for _, _, turns in rows],
        packed=decoder.can_pack,
    )
    return compute_answer_losses(decoder.net, decoder.injection, to_device(batch, decoder.device))


class _AnswerLoss(torch.autograd.Function):
    """The weighted answer loss as a function of activations (see the module's docstring)."""

    @staticmethod
    def forward(
        ctx: Any,
        decoder: Decoder,
        readings: Sequence[Reading],
        turns: Sequence[Sequence[WeightedTurn]],
        *vectors: torch.Tensor,
    ) -> torch.Tensor:
        placed = [replace(r, vectors=v) for r, v in zip(readings, vectors, strict=True)]
        _, total, gradients = take_gradient(decoder, placed, turns)
        # of a model that is spread, the vectors may be on another device than the decoder's input
        ctx.save_for_backward(*(g.to(v) for g, v in zip(gradients, vectors, strict=True)))
        return total.float()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        return (None, None, None, *(outputs[0].to(g.dtype) * g for g in ctx.saved_tensors))


def answer_loss(
    decoder: Decoder,
    readings: Sequence[Reading],
    turns: Sequence[Sequence[WeightedTurn]],
) -> torch.Tensor:
    """Compute the weighted answer loss of rows, differentiable in their vectors.

    Args:
        decoder: answers, with its own adapter whatever is active.
        readings: rows whose vectors are tensors, of any graph.
        turns: of each row, its questions; at least one.

    Returns:
        A float32 scalar: the sum of weight times loss, in nats per token.

    Raises:
        ValueError: the vectors of a reading are no tensor.
    """
    vectors = []
    for reading in readings:
        if not isinstance(reading.vectors, torch.Tensor):
            raise ValueError("answer_loss takes readings whose vectors are tensors")
        vectors.append(reading.vectors)
    loss: torch.Tensor = _AnswerLoss.apply(decoder, readings, turns, *vectors)  # type: ignore[no-untyped-call]
    return loss
