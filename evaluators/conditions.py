"""The activations that the decoder is given: the row's own, and the conditions it is held against.

| condition | the decoder is given |
|---|---|
| right | the row's own activations |
| other | those of another control of the same kind and split, of the nearest length |
| mean | the training split's mean token, repeated |
| none | the placeholders' own embeddings |
| noise | random directions with the norms of the row's tokens |
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from generators.canonical import digest
from trainers.rows import Row, read_row, visible_tokens


class Given:
    """Readings of some rows under each condition, read from the store when first asked for.

    Args:
        rows: the rows that are judged.
        partners: `other` of each row, in their order.
        train: rows whose mean token is `mean`.
        layer: read layer.
        masking: whether the control's own tokens are withheld.
        seed: of `noise`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        partners: Sequence[Row],
        train: Sequence[Row],
        store: ActivationStore,
        layer: int,
        *,
        masking: bool,
        seed: int,
    ) -> None:
        self._rows = rows
        self._partners = partners
        self._train = train
        self._store = store
        self._layer = layer
        self._masking = masking
        self._seed = seed

    def __call__(self, condition: str) -> list[Reading]:
        """One reading a row."""
        if condition == "right":
            return self._own
        if condition == "other":
            return [self._read(row) for row in self._partners]
        return [
            uninformed(
                reading,
                condition,
                mean=self._mean if condition == "mean" else None,
                seed=int(digest([self._seed, row.example_id])[:12], 16),
            )
            for reading, row in zip(self._own, self._rows, strict=True)
        ]

    @cached_property
    def _own(self) -> list[Reading]:
        return [self._read(row) for row in self._rows]

    @cached_property
    def _mean(self) -> np.ndarray:
        return mean_token(self._train, self._store, self._layer, masking=self._masking)

    def _read(self, row: Row) -> Reading:
        return read_row(self._store, row, self._layer, masking=self._masking)


def pair_others(
    rows: Sequence[Row],
    pool: Sequence[Row],
    store: ActivationStore,
    *,
    masking: bool,
    seed: int,
) -> dict[str, Row]:
    """For each row another control's: same kind, nearest in visible length, equals drawn by seed.

    Rows of one group share labels or control texts, so a partner is of another group.

    Args:
        rows: the rows that need a partner.
        pool: all rows of their split and view.

    Returns:
        Partner by example id; a row that has none is absent.
    """
    lengths = {
        row.example_id: visible_tokens(store, row, masking=masking) for row in (*pool, *rows)
    }
    out = {}
    for row in rows:
        own = row.conversation
        away = {
            other.example_id: abs(lengths[other.example_id] - lengths[row.example_id])
            for other in pool
            if other.conversation.kind == own.kind
            and other.conversation.group_id != own.group_id
            and other.conversation.control_id != own.control_id
        }
        if away:
            least = min(away.values())
            nearest = [other for other in pool if away.get(other.example_id) == least]
            out[row.example_id] = min(
                nearest, key=lambda other: digest([seed, row.example_id, other.example_id])
            )
    return out


def mean_token(
    rows: Sequence[Row], store: ActivationStore, layer: int, *, masking: bool
) -> np.ndarray:
    """Mean [D] over all visible tokens of `rows`."""
    total, count = np.zeros(store.d_model), 0
    for row in rows:
        vectors = read_row(store, row, layer, masking=masking).vectors
        assert vectors is not None
        total += vectors.sum(0, dtype=np.float64)
        count += len(vectors)
    return (total / count).astype(np.float32)


def uninformed(
    reading: Reading, condition: str, *, mean: np.ndarray | None = None, seed: int = 0
) -> Reading:
    """`mean`, `none` or `noise` in place of a row's own reading: same length, same positions.

    Args:
        mean: [D] the mean token, for `mean`.
        seed: of the row's `noise`.
    """
    if condition == "none":
        return Reading(None, reading.n, reading.first_position)
    if condition == "mean":
        assert mean is not None
        vectors = np.broadcast_to(mean, (reading.n, len(mean)))
        return Reading(np.ascontiguousarray(vectors), reading.n, reading.first_position)
    assert reading.vectors is not None
    random = np.random.default_rng(seed).standard_normal(reading.vectors.shape)
    norms = np.linalg.norm(reading.vectors, axis=1, keepdims=True)
    random *= norms / np.linalg.norm(random, axis=1, keepdims=True)
    return Reading(random.astype(np.float32), reading.n, reading.first_position)
