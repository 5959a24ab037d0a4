"""Replies of a target, steered or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activation_store.target.generation import Sampling, generate_ids
from activation_store.target.tokens import ends_of_reply
from decoder.adapters import use_adapter
from decoder.model import Decoder
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.hooks import (
    Change,
    GradientAtEachToken,
    add_shifts,
    add_vectors,
    change_outputs,
)
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt
from decoder.steering.shifts import PromptShifts, compute_shifts
from decoder.steering.vectors import SteeringVector


@dataclass(frozen=True, slots=True)
class SteeredReply:
    """What a target wrote to one prompt.

    Attributes:
        text: the reply.
        ids: its token ids, the end of turn among them where it is finished.
        finished: whether the target ended it itself.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """One way to steer; exactly one field is set, none for the target as it is.

    Attributes:
        objective: the decoder's gradient moves activations of each prompt towards these answers.
        vector: is added to activations.
        adapter: name of an adapter on the decoder's network that the target runs with.
        config: how far and where activations are moved, for `objective`.
    """

    objective: SteeringObjective | None = None
    vector: SteeringVector | None = None
    adapter: str | None = None
    config: ActivationSteeringConfig = ActivationSteeringConfig()


def write_replies(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    steering: Steering,
    sampling: Sampling,
    *,
    tell: Callable[[int], None] | None = None,
) -> list[SteeredReply]:
    """Let the target reply to prompts, in one batch.

    The network is afterwards as before: no hook, adapters and flags as they were.

    Args:
        decoder: whose target replies.
        prompts: what it replies to.
        steering: how it is steered.
        sampling: how tokens are chosen.
        tell: called with each new token; one prompt alone.
    """
    changes = _changes(decoder, prompts, steering)
    ends = ends_of_reply(decoder.tokenizer)
    net: Any = decoder.net.get_base_model()
    with use_adapter(decoder.net, steering.adapter), _changed(net, changes):
        found = generate_ids(
            net, [prompt.ids.tolist() for prompt in prompts], ends, sampling, tell=tell
        )
    return [_reply(decoder.tokenizer, prompt, ids, ends) for prompt, ids in zip(prompts, found, strict=True)]


def _changed(
    net: Any, changes: Mapping[int, Change]
) -> contextlib.AbstractContextManager[None]:
    return change_outputs(net, changes) if changes else contextlib.nullcontext()


def _changes(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], steering: Steering
) -> Mapping[int, Change]:
    if steering.vector is not None:
        return add_vectors(prompts, steering.vector.layers)
    if steering.objective is None:
        return {}
    shifts: PromptShifts = compute_shifts(decoder, prompts, steering.objective, steering.config)
    if steering.config.new_tokens == "gradient":
        return GradientAtEachToken(
            decoder, prompts, shifts, steering.objective, steering.config
        ).changes()
    return add_shifts(prompts, shifts, steering.config)


def _reply(
    tokenizer: Any, prompt: SteeringPrompt, ids: Sequence[int], ends: frozenset[int]
) -> SteeredReply:
    finished = bool(ids) and ids[-1] in ends
    text = tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
    return SteeredReply(text.strip(), tuple(ids), finished)
