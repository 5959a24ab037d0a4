"""Replies of a target, steered or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from activation_store.target.generation import Sampling, generate_ids
from activation_store.tokens.tokens import ends_of_reply
from core.errors import DataError
from decoder.adapters import use_adapter
from decoder.forward import attention_mask
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
    """The text and tokens of a target's reply to one prompt.

    Attributes:
        text: the reply.
        ids: its token ids, the end of turn among them where it is finished.
        finished: whether the target ended it itself.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool


_DEFAULT = ActivationSteeringConfig()
_BATCH = 16
"""Prompts that are replied to together."""


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
    config: ActivationSteeringConfig = _DEFAULT


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
    ends = ends_of_reply(decoder.tokenizer)
    with steered_target(decoder, prompts, steering) as net:
        found = generate_ids(
            net, [prompt.ids.tolist() for prompt in prompts], ends, sampling, tell=tell
        )
    return [_reply(decoder.tokenizer, ids, ends) for ids in found]


def follow_by_replies(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    asked: Sequence[SteeringPrompt],
    tokens: int,
) -> list[SteeringPrompt]:
    """Put behind each prompt the beginning of the unsteered, greedy reply to another one.

    Args:
        decoder: whose target replies.
        prompts: what is followed.
        asked: what is replied to, one for each.
        tokens: longest beginning; 0 leaves the prompts as they are.
    """
    if not tokens:
        return list(prompts)
    found: list[SteeringPrompt] = []
    for start in range(0, len(prompts), _BATCH):
        own = slice(start, start + _BATCH)
        replies = write_replies(decoder, asked[own], Steering(), Sampling(max_tokens=tokens))
        found += [
            prompt.followed_by(reply.ids)
            for prompt, reply in zip(prompts[own], replies, strict=True)
        ]
    return found


@contextlib.contextmanager
def steered_target(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], steering: Steering
) -> Iterator[Any]:
    """Run the target steered, for one generation or one scoring, while the context is open.

    Args:
        decoder: whose target is steered.
        prompts: of the first pass.
        steering: how.

    Yields:
        The target's network.
    """
    changes = _changes(decoder, prompts, steering)
    net = decoder.net.get_base_model()
    with use_adapter(decoder.net, steering.adapter), change_outputs(net, changes):
        yield net


def score_replies(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    replies: Sequence[Sequence[int]],
    steering: Steering,
) -> list[float]:
    """Compute the log-likelihood of given replies under the target, steered or not, in one batch.

    Args:
        decoder: whose target it is.
        prompts: what is replied to.
        replies: token ids of each; at least one.
        steering: how the target is steered.

    Returns:
        Of each, the sum over its tokens, in nats.

    Raises:
        DataError: a prompt with its reply is longer than the target encodes positions alike.
    """
    most = decoder.prompt.most_positions
    longest = max(len(p.ids) + len(own) for p, own in zip(prompts, replies, strict=True))
    if most is not None and longest > most:
        raise DataError(
            f"a prompt with its reply has {longest} tokens, but the target encodes "
            f"positions differently past {most} (rope_scaling in its config.json). Use "
            "shorter ones."
        )
    width, length = max(len(p.ids) for p in prompts), max(map(len, replies))
    ids = torch.zeros(len(prompts), width + length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        ids[row, width - len(prompt.ids) : width] = torch.from_numpy(prompt.ids.astype(np.int64))
        ids[row, width : width + len(reply)] = torch.as_tensor(reply)
        mask[row, width - len(prompt.ids) : width + len(reply)] = 1
    ids, mask = ids.to(decoder.device), mask.to(decoder.device)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    one_by_one = steering.objective is not None and steering.config.new_tokens == "gradient"
    stops = [width, *range(width + 1, width + length), width + length]
    if not one_by_one:
        stops = [width, width + length]
    logits, start, cache = [], 0, DynamicCache(config=decoder.net.get_base_model().config)
    with torch.no_grad(), steered_target(decoder, prompts, steering) as net:
        for stop in stops:
            found = net(
                input_ids=ids[:, start:stop],
                attention_mask=attention_mask(net, mask[:, :stop], ids[:, start:stop]),
                position_ids=positions[:, start:stop],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1 if start == 0 else 0,
            ).logits
            logits.append(found.float())
            start = stop
    predicted_BRV = torch.cat(logits, 1)[:, :-1].log_softmax(-1)
    chosen_BR = predicted_BRV.gather(-1, ids[:, width:, None])[..., 0]
    totals: list[float] = (chosen_BR * mask[:, width:]).sum(1).cpu().tolist()
    return totals


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


def _reply(tokenizer: Any, ids: Sequence[int], ends: frozenset[int]) -> SteeredReply:
    finished = bool(ids) and ids[-1] in ends
    text = tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True)
    return SteeredReply(text.strip(), tuple(ids), finished)
