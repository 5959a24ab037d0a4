"""A layer's vectors for those who want them alone: as numpy arrays, and as a `datasets` stream.

Shapes: N tokens of all examples, T tokens of one, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from activation_store.read.reader import ActivationStore

if TYPE_CHECKING:
    from datasets import Features, IterableDataset


@dataclass(frozen=True, slots=True)
class Vectors:
    """A layer in memory.

    Attributes:
        values: [N, D] float32.
        starts: [examples + 1] int64; example i has the rows `starts[i]` to `starts[i + 1]`.
        example_ids: in the order of the rows.
    """

    values: np.ndarray
    starts: np.ndarray
    example_ids: tuple[str, ...]


def as_numpy(store: ActivationStore, layer: int | None = None) -> Vectors:
    """All vectors of a layer, one example after the other without padding.

    Args:
        layer: block whose output is read; the store's only one where it is None.

    Raises:
        StoreError: the store has not the layer, or a shard is not committed.
        DamagedError: bytes are not those committed.
    """
    layer = store.only_layer(layer)
    starts = np.concatenate([[0], np.cumsum(store.index.n_tokens)])
    values = np.empty((starts[-1], store.d_model), np.float32)
    for i, example in enumerate(store.index):
        values[starts[i] : starts[i + 1]] = store.read(example, layer)
    return Vectors(values, starts, tuple(store.index))


def records(store: ActivationStore, layer: int) -> Iterator[dict[str, Any]]:
    """One plain record an example, in the store's order: {"example_id", "tokens" [T],
    "segments" [T], "withheld", "activations" [T, D] float32}."""
    for example, placed in store.index.items():
        yield {
            "example_id": example,
            "tokens": store.tokens(example),
            "segments": store.segments(example),
            "withheld": placed.withheld,
            "activations": store.read(example, layer),
        }


def features(d_model: int) -> Features:
    """The columns of `records` as `datasets` knows them."""
    from datasets import Array2D, Features, List, Value

    return Features(
        {
            "example_id": Value("string"),
            "tokens": List(Value("int32")),
            "segments": List(Value("uint8")),
            "withheld": Value("int32"),
            "activations": Array2D(shape=(None, d_model), dtype="float32"),
        }
    )


def as_dataset(root: Path, layer: int | None = None) -> IterableDataset:
    """The records of a layer as a `datasets.IterableDataset`, which copies nothing to disk.

    Raises:
        StoreError: there is no store, or it has not the layer.
    """
    from datasets import IterableDataset

    store = ActivationStore(root)
    return IterableDataset.from_generator(
        records,
        features=features(store.d_model),
        gen_kwargs={"store": store, "layer": store.only_layer(layer)},
    )
