"""Hooks that change a target's activations while it generates.

A target with a key-value cache runs once on its prompts, padded on the left, and then on new tokens
behind them.

Shapes: B prompts, T tokens of a pass, D d_model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from activation_store.target.load import blocks
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.geometry import LEAST_NORM, Geometry, limit_lengths
from decoder.steering.gradient import take_gradient
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.shifts import PromptShifts

Change = Callable[[torch.Tensor, bool], torch.Tensor]
"""Takes a block's output [B, T, D], and whether it is of the prompts; returns it changed."""


@contextlib.contextmanager
def change_outputs(net: nn.Module, changes: Mapping[int, Change]) -> Iterator[None]:
    """Change the outputs of blocks while the context is open.

    The first pass is that of the prompts, later ones are of new tokens. A pass that a change itself
    makes of the same network is left alone.

    Args:
        net: the network.
        changes: by block, counted from 0.
    """
    all_blocks = blocks(net)
    busy = False

    def hook_of(change: Change) -> Callable[..., Any]:
        at_prompts = True

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal busy, at_prompts
            if busy:
                return None
            hidden_BTD = output if isinstance(output, torch.Tensor) else output[0]
            busy = True
            try:
                changed = change(hidden_BTD, at_prompts).to(hidden_BTD.dtype)
            finally:
                busy, at_prompts = False, False
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return hook

    handles = [all_blocks[k].register_forward_hook(hook_of(c)) for k, c in changes.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def add_vectors(
    prompts: Sequence[SteeringPrompt], vectors: Mapping[int, torch.Tensor]
) -> dict[int, Change]:
    """Make hooks that add each block's vector [D] to every activation a decoder would read.

    Args:
        prompts: B prompts.
        vectors: by block.
    """

    def change_of(vector_D: torch.Tensor) -> Change:
        def change(hidden_BTD: torch.Tensor, at_prompts: bool) -> torch.Tensor:
            vector = vector_D.to(hidden_BTD.device, hidden_BTD.dtype)
            if not at_prompts:
                return hidden_BTD + vector
            mask = hidden_BTD.new_zeros(*hidden_BTD.shape[:2], 1)
            for row, prompt in enumerate(prompts):
                mask[row, hidden_BTD.shape[1] - len(prompt.ids) + prompt.withheld :] = 1
            return hidden_BTD + mask * vector

        return change

    return {block: change_of(vector) for block, vector in vectors.items()}


def add_shifts(
    prompts: Sequence[SteeringPrompt],
    shifts: PromptShifts,
    config: ActivationSteeringConfig,
) -> dict[int, Change]:
    """Make changes that add the shifts of prompts, and their mean to new tokens where wanted.

    Args:
        prompts: B prompts.
        shifts: of them.
        config: which tokens are shifted.
    """
    means = shifts.mean(prompts)

    def change_of(place: int) -> Change:
        mean_BD = torch.stack([mean[place] for mean in means])

        def change(hidden_BTD: torch.Tensor, at_prompts: bool) -> torch.Tensor:
            if not at_prompts:
                if config.new_tokens == "none":
                    return hidden_BTD
                return hidden_BTD + mean_BD[:, None].to(hidden_BTD)
            return _at_prompts(hidden_BTD, [shift[place] for shift in shifts.shifts], config)

        return change

    return {block: change_of(place) for place, block in enumerate(shifts.layers)}


def _at_prompts(
    hidden_BTD: torch.Tensor, shifts_TD: Sequence[torch.Tensor], config: ActivationSteeringConfig
) -> torch.Tensor:
    if not config.prompt_tokens:
        return hidden_BTD
    padded = torch.zeros_like(hidden_BTD)
    for row, shift in enumerate(shifts_TD):
        padded[row, hidden_BTD.shape[1] - len(shift) :] = shift.to(padded)
    return hidden_BTD + padded


class GradientAtEachToken:
    """Changes that shift the prompts, and then each new token down a gradient of its own.

    The decoder reads what the target has been made to hold so far. Of several layers that it reads
    together new tokens are moved at the deepest, since the others have run by then.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[SteeringPrompt],
        shifts: PromptShifts,
        objective: SteeringObjective,
        config: ActivationSteeringConfig,
    ) -> None:
        self._decoder, self._prompts, self._shifts = decoder, prompts, shifts
        self._objective, self._config = objective, config
        self._layers = decoder.select_layers()
        self._device = decoder.device  # where the decoder reads; a block may be on another
        self._deepest = Geometry.of(decoder).of_layer(-1)
        # by layer, of each prompt, what the decoder reads so far [n, D]
        self._held: dict[int, list[torch.Tensor]] = {}

    def changes(self) -> dict[int, Change]:
        """Return the change of each layer."""
        return {
            block: self._change_of(place, block) for place, block in enumerate(self._shifts.layers)
        }

    def _change_of(self, place: int, block: int) -> Change:
        def change(hidden_BTD: torch.Tensor, at_prompts: bool) -> torch.Tensor:
            if at_prompts:
                own = [shift[place] for shift in self._shifts.shifts]
                changed = _at_prompts(hidden_BTD, own, self._config)
                self._held[block] = [
                    self._read(row[len(row) - len(prompt.ids) + prompt.unread :])
                    for row, prompt in zip(changed, self._prompts, strict=True)
                ]
                return changed
            assert hidden_BTD.shape[1] == 1, "new tokens are steered one at a time"
            self._held[block] = [
                torch.cat([held, self._read(row)])
                for held, row in zip(self._held[block], hidden_BTD, strict=True)
            ]
            if block == self._shifts.layers[-1]:
                self._move_last(block)
            return torch.stack([held[-1:] for held in self._held[block]]).to(hidden_BTD)

        return change

    def _read(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        return hidden_TD.to(self._device, torch.float32)

    def _move_last(self, block: int) -> None:
        """Move the newest activation of `block` down the gradient."""
        config = self._config
        start = torch.stack([held[-1] for held in self._held[block]])
        lengths = self._deepest.lengths(start)
        shift = torch.zeros_like(start)
        for _ in range(config.steps):
            _, _, found = take_gradient(
                self._decoder,
                self._readings(),
                [self._objective.all_turns] * len(self._prompts),
            )
            gradient = self._deepest.slope(torch.stack([own[-1] for own in found]))
            size = gradient.norm(dim=-1, keepdim=True).clamp_min(LEAST_NORM)
            step = config.step_size * lengths * gradient / size
            shift = limit_lengths(shift - step, config.norm_limit * lengths)
            for row, held in enumerate(self._held[block]):
                held[-1] = start[row] + (shift * self._deepest.unit_LD)[row]

    def _readings(self) -> list[Reading]:
        readings = []
        for row, prompt in enumerate(self._prompts):
            held = [self._held[block][row] for block in self._shifts.layers]
            unread = 0 if prompt.last_tokens is None else max(0, len(held[0]) - prompt.last_tokens)
            held = [own[unread:] for own in held]
            readings.append(
                Reading(
                    held[0] if len(held) == 1 else torch.cat(held),
                    len(held[0]),
                    prompt.unread + unread,
                    self._layers.layers if self._layers.named else (),
                )
            )
        return readings
