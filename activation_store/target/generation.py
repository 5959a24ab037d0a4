"""Generation of token ids by a causal language model, shaped by nothing but the settings given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import forget_lengths, rope_switch

_ROUNDING = (1e-2, 1e-1)
"""Largest relative change of scores that rounding explains, in 32 and in 16 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Settings of sampling: longest reply, temperature, seed.

    Attributes:
        max_tokens: most new tokens.
        temperature: 0 is greedy.
        top_p: share of the probability that is sampled from; 1 is all.
        top_k: number of tokens that are sampled from; 0 is all.
        repetition_penalty: divides the scores of tokens that were there before; 1 is none.
        seed: of what is drawn.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0


class _TokenListener:
    """Passes on each generated token of one prompt, like a streamer of transformers."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._in_prompt = tell, True

    def put(self, value: torch.Tensor) -> None:
        if self._in_prompt:  # the prompt comes first
            self._in_prompt = False
        else:
            self._tell(int(value.flatten()[-1]))

    def end(self) -> None:
        self._in_prompt = True


def generate_ids(
    net: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    sampling: Sampling,
    *,
    tell: Callable[[int], None] | None = None,
    batched: bool = True,
) -> list[list[int]]:
    """Generate the token ids that follow each prompt, up to the first of `ends` and with it.

    The model's generation_config.json takes no part. The prompts are padded on the left and run as
    one batch, but for those that may grow past where the model encodes positions otherwise: in a
    batch the longest would decide for all. The generator of the process is seeded.

    Args:
        net: a causal language model.
        prompts: token ids of each.
        ends: token ids that end a reply.
        sampling: how tokens are chosen.
        tell: called with each new token; one prompt alone.
        batched: whether several prompts may share a batch (`is_batchable`).
    """
    longest = rope_switch(net)
    groups: dict[int | None, list[int]] = {}
    for i, own in enumerate(prompts):
        is_far = longest is not None and len(own) + sampling.max_tokens > longest
        groups.setdefault(i if is_far or not batched else None, []).append(i)
    replies: dict[int, list[int]] = {}
    for group in groups.values():
        found = _generate_batch(net, [prompts[i] for i in group], ends, sampling, tell)
        replies |= zip(group, found, strict=True)
    return [replies[i] for i in range(len(prompts))]


@torch.no_grad()
def is_batchable(net: Any) -> bool:
    """Return whether a reply is the same in a batch, behind masked padding, as alone.

    It is not where a model counts positions by place, where a recurrent block takes padding in, or
    where one mixes the states of several rows.

    Args:
        net: a causal language model.
    """
    alone = torch.arange(1, 9, device=next(net.parameters()).device)[None]
    mask = nn.functional.pad(torch.ones_like(alone), (32, 0))
    batch = nn.functional.pad(alone, (32, 0)), torch.arange(40, 0, -1, device=alone.device)[None]
    own_settings, net.generation_config = net.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=2, output_logits=True, return_dict_in_generate=True, pad_token_id=0
    )
    try:
        with quiet_libraries():
            expected, found = (
                torch.stack(
                    net.generate(ids, attention_mask=own, generation_config=settings).logits
                )[:, 0].float()
                for ids, own in (
                    (alone, torch.ones_like(alone)),
                    (torch.cat(batch), torch.cat([mask, torch.ones_like(mask)])),
                )
            )
    finally:
        net.generation_config = own_settings
    most = _ROUNDING[net.dtype.itemsize < 4]
    return bool((found - expected).norm() <= most * expected.norm())


def _generate_batch(
    net: Any,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    sampling: Sampling,
    tell: Callable[[int], None] | None,
) -> list[list[int]]:
    """Generate what follows each prompt, padded on the left, as one batch."""
    width = max(map(len, prompts))
    device = next(net.parameters()).device
    batch = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for i, own in enumerate(prompts):
        batch[i, width - len(own) :] = torch.as_tensor(own)
        mask[i, width - len(own) :] = 1
    drawn: dict[str, Any] = {}
    if sampling.temperature > 0:
        drawn = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
    stops = sorted(ends)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_tokens,
        do_sample=bool(drawn),
        repetition_penalty=sampling.repetition_penalty,
        pad_token_id=stops[0] if stops else 0,
        eos_token_id=stops or None,
        **drawn,
    )
    own_settings = net.generation_config
    # generate() fills what its argument leaves open from the model's own settings
    net.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    torch.manual_seed(sampling.seed)
    forget_lengths(net)
    try:
        with torch.no_grad(), quiet_libraries():
            found = net.generate(
                batch.to(device),
                attention_mask=mask.to(device),
                generation_config=settings,
                streamer=None if tell is None else _TokenListener(tell),
            )
    finally:
        net.generation_config = own_settings
    return [up_to_end(own, ends) for own in found[:, width:].tolist()]


def up_to_end(ids: list[int], ends: Collection[int]) -> list[int]:
    """Cut token ids after the first that ends a reply."""
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    return ids if stop is None else ids[: stop + 1]
