"""The control effect: does the target hold the control at all?

It is the log-likelihood of a row's completion under its own control, less that under the control
of its swapped conversation, in nats: how much likelier the reply is because of what is hidden.
Where it is near zero there is nothing to read, and a decoder is not to blame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from activation_store.target.load import rope_switch
from activation_store.target.swaps import make_swaps, tokenize_swapped
from activation_store.tokens.tokens import SEGMENT_CODES, Tokens, tokenize_row
from core.errors import DataError
from core.records.estimate import Estimate
from core.records.tables import Conversation
from decoder.batch import to_device
from decoder.forward import attention_mask
from decoder.head import logits_at
from evaluators.config import EvaluateConfig
from evaluators.measure.panel import column_mean, make_bootstrap, stack_control_means
from trainers.data.rows import Row

VIEW = "stimulus_completion"
"""The view whose rows have a completion."""
_BATCH_TOKENS = 2048


def measure_control_effects(
    net: Any,
    tokenizer: Any,
    rows: Sequence[Conversation],
    table: Sequence[Conversation],
    *,
    longest: int,
) -> dict[str, float]:
    """Measure the control effect of rows that have a completion.

    Args:
        net: the target; a decoder's network with its adapter off is one.
        tokenizer: the target's.
        rows: rows to measure; those of other views are left out.
        table: every conversation, so that controls are paired as for the hidden gain.
        longest: most tokens of a conversation; longer ones are left out, as by a dump.

    Returns:
        Nats by example id; rows that have no swapped conversation are absent.
    """
    wanted = {row.example_id: row.split for row in rows if row.view == VIEW}
    splits = set(wanted.values())
    pool = [row for row in table if row.view == VIEW and row.split in splits]
    own: dict[str, Tokens] = {}
    for row in pool:
        with contextlib.suppress(DataError):  # the dump leaves it out as well, and counts it
            tokens = tokenize_row(tokenizer, row)
            if len(tokens.ids) <= longest:
                own[row.example_id] = tokens
    kept = [row for row in pool if row.example_id in own]
    hidden = {example: tokens.withheld for example, tokens in own.items()}
    swapped = dict(tokenize_swapped(kept, own, tokenizer, longest=longest))
    swaps = [
        swap
        for swap in make_swaps(kept, hidden, splits)
        if swap.row.example_id in wanted and swap.swapped.example_id in swapped
    ]
    conversations = {}
    for swap in swaps:
        conversations[swap.row.example_id, "own"] = own[swap.row.example_id]
        conversations[swap.row.example_id, "swapped"] = swapped[swap.swapped.example_id]
    likelihood = _completion_log_likelihoods(net, conversations)
    return {
        swap.row.example_id: likelihood[swap.row.example_id, "own"]
        - likelihood[swap.row.example_id, "swapped"]
        for swap in swaps
    }


def estimate_effect(
    effects: Mapping[str, float], rows: Sequence[Row], config: EvaluateConfig
) -> Estimate:
    """Estimate the mean control effect over controls, in nats a completion."""
    own = [row.conversation for row in rows if row.example_id in effects]
    values = np.array([effects[conversation.example_id] for conversation in own])
    controls = np.array([conversation.control_id for conversation in own])
    means = stack_control_means({"effect": values}, controls)
    return make_bootstrap(means, config)(column_mean(["effect"], "effect"))


@torch.inference_mode()
def _completion_log_likelihoods(
    net: Any, conversations: Mapping[tuple[str, str], Tokens]
) -> dict[tuple[str, str], float]:
    """Sum the log-likelihood of each conversation's completion tokens under the target, in nats."""
    device = next(net.parameters()).device
    order = sorted(conversations, key=lambda key: len(conversations[key].ids))
    found: dict[tuple[str, str], float] = {}
    most = rope_switch(net)
    while order:
        width = len(conversations[order[-1]].ids)
        batch = [order.pop() for _ in range(min(len(order), max(1, _BATCH_TOKENS // width)))]
        if most is not None and width > most:  # a batch past it encodes all positions otherwise
            near = [key for key in batch if len(conversations[key].ids) <= most]
            order += reversed(near)
            batch = batch[: len(batch) - len(near)]
        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        wanted = np.zeros((len(batch), width), bool)
        for i, key in enumerate(batch):
            tokens = conversations[key]
            ids[i, : len(tokens.ids)], mask[i, : len(tokens.ids)] = tokens.ids, 1
            wanted[i, : len(tokens.ids)] = tokens.segments == SEGMENT_CODES["completion"]
        predicting = np.zeros_like(wanted)
        predicting[:, :-1] = wanted[:, 1:]
        arrays = {
            "ids": ids,
            "mask": mask,
            "places": np.flatnonzero(predicting),
            "targets": ids[:, 1:][predicting[:, :-1]],
        }
        tensors = to_device({k: torch.from_numpy(v) for k, v in arrays.items()}, device)
        with logits_at(net, tensors["places"]):
            logits_AV = net(
                input_ids=tensors["ids"],
                attention_mask=attention_mask(net, tensors["mask"], tensors["ids"]),
                use_cache=False,
            ).logits
        losses_A = F.cross_entropy(logits_AV.float(), tensors["targets"], reduction="none")
        losses = losses_A.cpu().numpy()
        rows = np.nonzero(predicting)[0]
        totals = np.bincount(rows, weights=losses, minlength=len(batch))
        found |= {key: -float(total) for key, total in zip(batch, totals, strict=True)}
    return found
