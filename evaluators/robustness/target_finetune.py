"""A fine-tune of the target, made here and read by the unchanged decoder.

A second LoRA adapter is trained on the target's own network, beside the decoder's, and taken out
again; its strength is the factor on its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from evaluators.robustness.config import RobustnessConfig
from trainers.steering.adapter import (
    add_target_adapter,
    remove_steering_adapter,
    scaled_adapter,
    steering_weights,
)
from trainers.steering.language_loss import compute_language_loss

_NAME = "shift"
_ROWS = 4
"""Conversations of an optimiser step."""
_LONGEST = 256
"""Tokens of a conversation that are learned from."""


class FineTune:
    """A LoRA fine-tune of the target, loaded beside the decoder's adapter.

    Attributes:
        losses: language-model loss of the first and of the last step, in nats a token.
    """

    def __init__(
        self, decoder: Decoder, sequences: Sequence[np.ndarray], config: RobustnessConfig
    ) -> None:
        """Train the fine-tune.

        Args:
            decoder: on whose base it is trained.
            sequences: token ids of the conversations that it learns to write.
            config: its settings.
        """
        self._decoder = decoder
        self.losses = _train(decoder, sequences, config)

    @contextlib.contextmanager
    def at(self, strength: float) -> Iterator[TargetNetwork]:
        """Use the fine-tune at `strength` as the target; the decoder must not be used meanwhile."""
        decoder = self._decoder
        with scaled_adapter(decoder, _NAME, strength), decoder.with_adapter(_NAME):
            yield TargetNetwork(decoder.net.get_base_model(), decoder.tokenizer)

    def remove(self) -> None:
        """Remove the fine-tune from the decoder's network."""
        remove_steering_adapter(self._decoder, _NAME)


def _train(
    decoder: Decoder, sequences: Sequence[np.ndarray], config: RobustnessConfig
) -> tuple[float, float]:
    from peft import LoraConfig

    adapter = LoraConfig(
        r=config.shift_rank,
        lora_alpha=2 * config.shift_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    add_target_adapter(decoder, _NAME, adapter, seed=config.seed)
    draw = np.random.default_rng(config.seed)
    losses: list[torch.Tensor] = []
    with decoder.with_adapter(_NAME):
        weights = steering_weights(decoder, _NAME)
        for values in weights:
            values.requires_grad_(True)
        optimiser = torch.optim.AdamW(weights, lr=config.shift_learning_rate, weight_decay=0.0)
        for _ in range(config.shift_steps):
            chosen = draw.choice(len(sequences), min(_ROWS, len(sequences)), replace=False)
            loss = compute_language_loss(decoder.net, [sequences[i][:_LONGEST] for i in chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(loss.detach())
    return float(losses[0]), float(losses[-1])
