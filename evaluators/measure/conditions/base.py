"""The base of conditions: the activations that the decoder is given in place of a row's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.documents.canonical import digest
from core.records.tables import View
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers, read_visible
from trainers.data.decoder_inputs import make_visible_text_reading
from trainers.data.rows import Row, read_row


class EvalContext:
    """The activations that a condition may use beside those of the row at hand.

    Attributes:
        store: source of the activations of every row.
        layers: what the decoder reads.
        partners: for each evaluated row, by example id, the row of another control (`other`).
        swaps: for each row of a masked view that has one, its swapped conversation (`swapped`).
    """

    def __init__(
        self,
        store: ActivationSource,
        layers: ReadLayers | int,
        *,
        masking: bool,
        seed: int,
        partners: Mapping[str, Row] | None = None,
        swaps: Mapping[str, str] | None = None,
        train: Sequence[Row] = (),
    ) -> None:
        """Prepare the evaluation of some rows.

        Args:
            store: source of activations.
            layers: what the decoder reads; a number is that layer alone.
            masking: whether the control's own tokens are withheld.
            seed: of everything that a condition draws.
            partners: row of another control by example id.
            swaps: example id of the swapped conversation by example id.
            train: rows whose mean token is `mean_token`.
        """
        self.store = store
        self.layers = ReadLayers((layers,)) if isinstance(layers, int) else layers
        self.partners = partners or {}
        self.swaps = swaps or {}
        self._masking = masking
        self._seed = seed
        self._train = train
        self._readings: dict[str, Reading] = {}

    def own_reading(self, row: Row) -> Reading:
        """Return the row's own visible activations, which are read once."""
        if row.example_id not in self._readings:
            self._readings[row.example_id] = self.read(row)
        return self._readings[row.example_id]

    def read(self, row: Row, layer: int | None = None) -> Reading:
        """Read the visible activations of any row; of another stored layer where one is given."""
        layers = self.layers if layer is None else layer
        return read_row(self.store, row, layers, masking=self._masking)

    def read_example(self, example_id: str, view: View) -> Reading:
        """Read the visible activations of any example, which need not be a row of the table."""
        return read_visible(self.store, example_id, view, self.layers, masking=self._masking)

    def visible_text(self, row: Row) -> Reading:
        """Put the row's visible tokens where their activations would be."""
        return make_visible_text_reading(self.store, row, masking=self._masking)

    def make_generator(self, row: Row) -> np.random.Generator:
        """Make the row's own random generator: the same whatever rows are evaluated beside it."""
        return np.random.default_rng(int(digest([self._seed, row.example_id])[:12], 16))

    @cached_property
    def mean_token(self) -> np.ndarray:
        """Mean [L, D] over all visible tokens of the training rows, of each layer that is read."""
        total, count = np.zeros((len(self.layers.layers), self.store.d_model)), 0
        for row in self._train:
            reading = self.read(row)
            vectors = reading.array
            assert vectors is not None
            by_layer = vectors.reshape(len(total), reading.n, -1)
            total += by_layer.sum(1, dtype=np.float64)
            count += reading.n
        return (total / count).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to fill the placeholders of a row.

    Attributes:
        name: in the YAML and the tables.
        read: returns what the decoder is given of a row; it keeps the row's length and positions
            unless it belongs to another row.
        why_unavailable: returns in words why a store lacks what the condition needs of those
            layers; None where it does not.
    """

    name: str
    read: Callable[[Row, EvalContext], Reading]
    why_unavailable: Callable[[ActivationSource, ReadLayers], str | None] = lambda *_: None
