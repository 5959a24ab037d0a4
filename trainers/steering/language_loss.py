"""The language-model loss of token sequences, on whose padding nothing depends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from activation_store.target.capture import without_look
from activation_store.target.load import rope_switch


def compute_language_loss(
    net: Any, sequences: Sequence[np.ndarray], *, given: Sequence[int] = ()
) -> torch.Tensor:
    """Compute the mean loss of the next tokens of sequences, in nats per token.

    Args:
        net: a causal language model, or a peft model of one.
        sequences: token ids.
        given: of each sequence, how many of its first tokens are given and carry no loss; the
            first alone where nothing is said.
    """
    device = next(net.parameters()).device
    starts = given or (1,) * len(sequences)
    most = rope_switch(net) or math.inf
    near = [i for i, own in enumerate(sequences) if len(own) <= most]
    far = [i for i, own in enumerate(sequences) if len(own) > most]
    if near and far:  # past that length all positions of a batch are encoded otherwise
        losses, tokens = [], []
        for rows in (near, far):
            own, first = [sequences[i] for i in rows], [starts[i] for i in rows]
            losses.append(compute_language_loss(net, own, given=first))
            tokens.append(sum(map(len, own)) - sum(first))
        return torch.stack([x * n for x, n in zip(losses, tokens, strict=True)]).sum() / sum(tokens)
    shape = (len(sequences), max(map(len, sequences)))
    ids_BT = torch.zeros(shape, dtype=torch.long)
    targets_BT = torch.full(shape, -100)
    for i, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        ids_BT[i, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
        targets_BT[i, start - 1 : len(sequence) - 1] = ids_BT[i, start : len(sequence)]
    # causal attention sees no padding behind a sequence
    logits_BTV = net(input_ids=ids_BT.to(device), use_cache=False, **without_look(net)).logits
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.to(device).flatten())
