"""Supervised fine-tuning of the target on replies: the baseline of steering by weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from decoder.adapters import use_adapter
from decoder.model import Decoder
from decoder.steering.prompts import SteeringPrompt
from trainers.steering.adapter import add_steering_adapter, steering_weights
from trainers.steering.config import WeightSteeringConfig
from trainers.steering.language_loss import compute_language_loss
from trainers.steering.loop import AdapterTraining, train_adapter


def train_reply_adapter(
    decoder: Decoder,
    rows: Sequence[tuple[SteeringPrompt, Sequence[int]]],
    held_out: Sequence[tuple[SteeringPrompt, Sequence[int]]],
    config: WeightSteeringConfig,
    *,
    name: str,
) -> AdapterTraining:
    """Train an adapter of the same shape by supervised fine-tuning on replies (a baseline).

    Args:
        decoder: on whose network it is to stand.
        rows: prompts, and the token ids of the replies that they are to get.
        held_out: likewise; the weights with the lowest loss on them are kept.
        config: shape and optimisation.
        name: of the adapter.
    """
    blocks = max(decoder.layers) + 1
    add_steering_adapter(decoder, config.lora, blocks=blocks, seed=config.seed, name=name)

    def loss_of(chosen: Sequence[tuple[SteeringPrompt, Sequence[int]]]) -> torch.Tensor:
        losses = [_reply_loss(decoder, prompt, reply, name) for prompt, reply in chosen]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def check() -> float:
        return float(loss_of(held_out).cpu())

    return train_adapter(
        steering_weights(decoder, name),
        lambda chosen, step: loss_of([rows[i] for i in chosen]),
        check,
        config,
        rows=len(rows),
    )


def _reply_loss(
    decoder: Decoder, prompt: SteeringPrompt, reply: Sequence[int], name: str
) -> torch.Tensor:
    """Compute the mean loss of a reply's tokens, in nats."""
    ids = np.concatenate([prompt.ids, np.asarray(reply, np.int64)])
    with use_adapter(decoder.net, name):
        net = decoder.net.get_base_model()
        return compute_language_loss(net, [ids], given=[len(prompt.ids)])
