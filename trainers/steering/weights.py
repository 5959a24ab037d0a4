"""Steering by weights: a LoRA adapter on the target, trained so that the decoder reads a control.

The target runs on ordinary prompts with the adapter, the decoder is asked the control's questions
about its activations, and the loss of the answers wanted trains the adapter. Only the blocks up to
the read layer can change what is read, so only they carry it. The result is an ordinary peft
adapter of the target. (arXiv 2412.08686, section 5; per-layer losses for a decoder of several
layers.)

Shapes: B prompts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from activation_store.target.capture import Capture, without_look
from decoder.adapters import use_adapter
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.steering.gradient import answer_loss
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.replies import follow_by_replies
from trainers.steering.adapter import STEER, add_steering_adapter, steering_weights
from trainers.steering.config import WeightSteeringConfig
from trainers.steering.loop import AdapterTraining, train_adapter


def train_steering_adapter(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    held_out: Sequence[SteeringPrompt],
    objective: SteeringObjective,
    config: WeightSteeringConfig,
    *,
    unrelated: Sequence[SteeringPrompt] = (),
) -> AdapterTraining:
    """Train an adapter, which then stands on the decoder's network under the name `STEER`.

    Args:
        decoder: reads the target; none of its weights changes.
        prompts: what the target runs on.
        held_out: likewise; the weights with the lowest loss on them are kept.
        objective: the answers wanted.
        config: shape and optimisation.
        unrelated: prompts about other matters, in whose replies the target is to stay as it was
            (`kl_weight`).
    """
    add_steering_adapter(decoder, config.lora, blocks=max(decoder.layers) + 1, seed=config.seed)
    tokens = decoder.config.last_tokens or config.reply_tokens
    training = SteeringRows(decoder, prompts, reply_tokens=tokens)
    checking = SteeringRows(decoder, held_out, reply_tokens=tokens)
    anchor = KLAnchor(decoder, unrelated) if config.kl_weight and unrelated else None

    def loss_of(chosen: Sequence[int], step: int) -> torch.Tensor:
        loss = training.loss(objective, chosen, layer_turn=step)
        return loss if anchor is None else loss + config.kl_weight * anchor.divergence(step)

    return train_adapter(
        steering_weights(decoder),
        loss_of,
        lambda: checking.mean_loss(objective),
        config,
        rows=len(prompts),
    )


class SteeringRows:
    """Prompts with the beginning of the unsteered replies, run under the steering adapter."""

    def __init__(
        self, decoder: Decoder, prompts: Sequence[SteeringPrompt], *, reply_tokens: int
    ) -> None:
        self._decoder = decoder
        self._prompts = follow_by_replies(decoder, prompts, prompts, reply_tokens)

    def loss(
        self, objective: SteeringObjective, chosen: Sequence[int], *, layer_turn: int = 0
    ) -> torch.Tensor:
        """Compute the mean weighted answer loss of some prompts, with its graph.

        Args:
            objective: the answers wanted.
            chosen: indices of the prompts.
            layer_turn: of a decoder that reads one of several layers, which of them by turns.
        """
        readings = self._readings(chosen, layer_turn)
        total = answer_loss(self._decoder, readings, [objective.all_turns] * len(readings))
        return total / len(readings)

    @torch.no_grad()
    def mean_loss(self, objective: SteeringObjective) -> float:
        """Compute the mean weighted answer loss of all prompts."""
        readings = [r for i in range(len(self._prompts)) for r in self._readings([i], 0)]
        turns = [objective.all_turns] * len(readings)
        detached = [replace(r, vectors=torch.as_tensor(r.vectors).detach()) for r in readings]
        return float(answer_loss(self._decoder, detached, turns).cpu()) / len(readings)

    def _readings(self, chosen: Sequence[int], layer_turn: int) -> list[Reading]:
        decoder = self._decoder
        read = decoder.layers
        sampled = len(read) > 1 and decoder.config.combine == "sampled"
        layers = decoder.select_layers(read[layer_turn % len(read)] if sampled else None)
        prompts = [self._prompts[i] for i in chosen]
        with use_adapter(decoder.net, STEER):
            capture = Capture(decoder.net.get_base_model(), layers.layers, gradients=True)
            kept = capture([prompt.ids for prompt in prompts])
        return [
            prompt.reading(layers, [kept[layer][row] for layer in layers.layers])
            for row, prompt in enumerate(prompts)
        ]


class KLAnchor:
    """Holds the steered target to the unsteered one on texts that have nothing to do with it."""

    _TEXTS = 16
    _TOKENS = 24

    def __init__(self, decoder: Decoder, prompts: Sequence[SteeringPrompt]) -> None:
        self._decoder = decoder
        self._plain = prompts[: self._TEXTS]
        self._texts = follow_by_replies(decoder, self._plain, self._plain, self._TOKENS)

    def divergence(self, turn: int) -> torch.Tensor:
        """Compute KL(unsteered || steered) of the next tokens of one text's reply, in nats."""
        place = turn % len(self._texts)
        start = len(self._plain[place].ids) - 1
        ids = torch.from_numpy(self._texts[place].ids.astype(np.int64))[None]
        ids = ids.to(self._decoder.device)
        with torch.no_grad(), use_adapter(self._decoder.net, None):
            plain = self._log_probabilities(ids, start)
        with use_adapter(self._decoder.net, STEER):
            steered = self._log_probabilities(ids, start)
        return F.kl_div(steered, plain, log_target=True, reduction="batchmean")

    def _log_probabilities(self, ids: torch.Tensor, start: int) -> torch.Tensor:
        net = self._decoder.net.get_base_model()
        logits: torch.Tensor = net(ids, use_cache=False, **without_look(net)).logits
        return logits[0, start:-1].float().log_softmax(-1)
