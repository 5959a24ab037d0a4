"""A fine-tune of the target, made here and read by the unchanged decoder.

A second LoRA adapter is trained on the target's own network, beside the decoder's, and taken out
again; its strength is the factor on its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from decoder.adapters import multiply_in_base_format
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from evaluators.robustness.config import RobustnessConfig

_NAME = "shift"
_ROWS = 4
"""Conversations of an optimiser step."""
_LONGEST = 256
"""Tokens of a conversation that are learned from."""


class FineTune:
    """A fine-tune of the target, held beside the decoder.

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
        # of each layer with adapters, the factor on the weights of each
        scalings = (getattr(module, "scaling", None) for module in decoder.net.modules())
        self._scaling = [each for each in scalings if isinstance(each, dict) and _NAME in each]
        self._trained = [scaling[_NAME] for scaling in self._scaling]

    @contextlib.contextmanager
    def at(self, strength: float) -> Iterator[TargetNetwork]:
        """Use the fine-tune at `strength` as the target; the decoder must not be used meanwhile."""
        for scaling, trained in zip(self._scaling, self._trained, strict=True):
            scaling[_NAME] = trained * strength
        with self._decoder.with_adapter(_NAME):
            yield TargetNetwork(self._decoder.net.get_base_model(), self._decoder.tokenizer)

    def remove(self) -> None:
        """Remove the fine-tune from the decoder's network."""
        self._decoder.net.delete_adapter(_NAME)
        self._decoder.net.requires_grad_(False)  # peft turns on what is active afterwards


def _train(
    decoder: Decoder, sequences: Sequence[np.ndarray], config: RobustnessConfig
) -> tuple[float, float]:
    from peft import LoraConfig

    net: Any = decoder.net
    # the generator of the process is left as it was
    with torch.random.fork_rng(devices=[]), decoder.without_adapter():
        torch.manual_seed(config.seed)
        adapter = LoraConfig(
            r=config.shift_rank,
            lora_alpha=2 * config.shift_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        net.add_adapter(_NAME, adapter)
    multiply_in_base_format(net)
    draw = np.random.default_rng(config.seed)
    losses: list[torch.Tensor] = []
    with decoder.with_adapter(_NAME):
        weights = [values for name, values in net.named_parameters() if f".{_NAME}." in name]
        for values in weights:
            values.requires_grad_(True)
        optimiser = torch.optim.AdamW(weights, lr=config.shift_learning_rate, weight_decay=0.0)
        for _ in range(config.shift_steps):
            chosen = draw.choice(len(sequences), min(_ROWS, len(sequences)), replace=False)
            loss = _language_loss(net, [sequences[i][:_LONGEST] for i in chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            losses.append(loss.detach())
    return float(losses[0]), float(losses[-1])


def _language_loss(net: Any, sequences: Sequence[np.ndarray]) -> torch.Tensor:
    """Compute the mean loss of every next token, in nats."""
    device = next(net.parameters()).device
    shape = (len(sequences), max(map(len, sequences)))
    ids_BT = torch.zeros(shape, dtype=torch.long)
    targets_BT = torch.full(shape, -100)
    for i, sequence in enumerate(sequences):
        ids_BT[i, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
        targets_BT[i, : len(sequence) - 1] = ids_BT[i, 1 : len(sequence)]
    # causal attention sees no padding behind a sequence
    logits_BTV = net(input_ids=ids_BT.to(device), use_cache=False).logits
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.to(device).flatten())
