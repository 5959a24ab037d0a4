"""The order in which a pass takes a store's sequences: a function of seed and epoch alone.

Shards are shuffled and taken in windows of a few. Within a window sequences are shuffled, batched
with those of like length, and the batches are shuffled. So a reader has only a window's shards
open, batches pad little, and the order knows nothing of workers or ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activation_store.layout.index import Index


def batch_order(
    index: Index,
    *,
    seed: int,
    epoch: int,
    batch_tokens: int,
    window_shards: int,
    chosen: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Batches of one pass, each as numbers of sequences in row order.

    Args:
        batch_tokens: most tokens of a batch, padded to its longest; always one sequence at least.
        window_shards: shards whose sequences are mixed.
        chosen: the sequences to take; all where it is None.
    """
    random = np.random.default_rng([seed, epoch])
    numbers = np.arange(len(index)) if chosen is None else np.sort(chosen)
    shards = random.permutation(np.unique(index.shard[numbers]))
    out: list[np.ndarray] = []
    for start in range(0, len(shards), window_shards):
        own = numbers[np.isin(index.shard[numbers], shards[start : start + window_shards])]
        own = random.permutation(own)
        own = own[np.argsort(index.n_tokens[own], kind="stable")]  # ties stay shuffled
        batches = _cut(own, index.n_tokens[own].tolist(), batch_tokens)
        out += [batches[i] for i in random.permutation(len(batches))]
    return out


def _cut(numbers: np.ndarray, lengths: Sequence[int], batch_tokens: int) -> list[np.ndarray]:
    """Neighbours in ascending length, as many as fit."""
    out, first = [], 0
    for i, length in enumerate(lengths):
        if i > first and length * (i + 1 - first) > batch_tokens:
            out.append(numbers[first:i])
            first = i
    return [*out, numbers[first:]]
