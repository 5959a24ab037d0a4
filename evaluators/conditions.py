"""The activations that the decoder is given: the row's own, and the controls against which they count.

Definitions: right, other, mean, none, noise (docs/evaluation.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from generators.canonical import digest
from trainers.rows import Row, read_row, visible_tokens


def pair_others(
    rows: Sequence[Row], store: ActivationStore, *, masking: bool, seed: int
) -> dict[str, Row]:
    """For each row another control's: same kind, nearest in visible length, drawn by seed.

    Rows of one group share labels or control texts, so a partner is of another group.

    Args:
        rows: all of one split and view.

    Returns:
        Partner by example id; a row that has none is absent.
    """
    lengths = {row.example_id: visible_tokens(store, row, masking=masking) for row in rows}
    out = {}
    for row in rows:
        own = row.conversation
        rest = [
            other
            for other in rows
            if other.conversation.kind == own.kind
            and other.conversation.group_id != own.group_id
            and other.conversation.control_id != own.control_id
        ]
        if rest:
            out[row.example_id] = min(
                rest,
                key=lambda other: (
                    abs(lengths[other.example_id] - lengths[row.example_id]),
                    digest([seed, row.example_id, other.example_id]),
                ),
            )
    return out


def mean_token(
    rows: Sequence[Row], store: ActivationStore, layer: int, *, masking: bool
) -> np.ndarray:
    """Mean [D] over all visible tokens of `rows` (the training split's)."""
    total, count = np.zeros(store.d_model), 0
    for row in rows:
        vectors = read_row(store, row, layer, masking=masking).vectors
        assert vectors is not None
        total += vectors.sum(0, dtype=np.float64)
        count += len(vectors)
    return (total / max(count, 1)).astype(np.float32)


def uninformed(reading: Reading, condition: str, *, mean: np.ndarray, seed: int) -> Reading:
    """`mean`, `none` or `noise` in place of a row's own reading: same length, same positions.

    Args:
        mean: [D] the training split's mean token.
        seed: of the row's noise.
    """
    if condition == "none":
        return Reading(None, reading.n, reading.first_position)
    if condition == "mean":
        vectors = np.broadcast_to(mean, (reading.n, len(mean)))
        return Reading(np.ascontiguousarray(vectors), reading.n, reading.first_position)
    assert reading.vectors is not None
    random = np.random.default_rng(seed).standard_normal(reading.vectors.shape)
    norms = np.linalg.norm(reading.vectors, axis=1, keepdims=True)
    random *= norms / np.linalg.norm(random, axis=1, keepdims=True)
    return Reading(random.astype(np.float32), reading.n, reading.first_position)
