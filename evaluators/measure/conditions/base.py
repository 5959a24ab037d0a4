"""What a condition is: the activations that the decoder is given in place of a row's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.canonical import digest
from core.tables import View
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers, read_visible
from trainers.decoder_inputs import make_visible_text_reading
from trainers.rows import Row, read_row


class EvalContext:
    """The store, and what of it a condition may draw on beside the row at hand.

    Attributes:
        store: holds the activations of every row.
        layers: what the decoder reads.
        partners: for each judged row, by example id, the row of another control (`other`).
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
        """Set the scene of some rows.

        Args:
            masking: whether the control's own tokens are withheld.
            seed: of everything that a condition draws.
            train: rows whose mean token is `mean_token`.
        """
        self.store = store
        self.layers = ReadLayers((layers,)) if isinstance(layers, int) else layers
        self.partners = partners or {}
        self.swaps = swaps or {}
        self._masking = masking
        self._seed = seed
        self._train = train
        self._own: dict[str, Reading] = {}

    def own(self, row: Row) -> Reading:
        """The row's own visible activations; read once."""
        if row.example_id not in self._own:
            self._own[row.example_id] = self.read(row)
        return self._own[row.example_id]

    def read(self, row: Row, layer: int | None = None) -> Reading:
        """The visible activations of any row; of another stored layer where one is given."""
        layers = self.layers if layer is None else layer
        return read_row(self.store, row, layers, masking=self._masking)

    def read_example(self, example_id: str, view: View) -> Reading:
        """Read the visible activations of any example, which need not be a row of the table."""
        return read_visible(self.store, example_id, view, self.layers, masking=self._masking)

    def visible_text(self, row: Row) -> Reading:
        """Put the row's visible tokens where their activations would be."""
        return make_visible_text_reading(self.store, row, masking=self._masking)

    def draw(self, row: Row) -> np.random.Generator:
        """Random numbers of the row's own: the same whatever rows stand beside it."""
        return np.random.default_rng(int(digest([self._seed, row.example_id])[:12], 16))

    @cached_property
    def mean_token(self) -> np.ndarray:
        """Mean [L, D] over all visible tokens of the training rows, of each layer that is read."""
        total, count = np.zeros((len(self.layers.layers), self.store.d_model)), 0
        for row in self._train:
            reading = self.read(row)
            assert reading.vectors is not None
            by_layer = reading.vectors.reshape(len(total), reading.n, -1)
            total += by_layer.sum(1, dtype=np.float64)
            count += reading.n
        return (total / count).astype(np.float32)


def always(store: ActivationSource, layers: ReadLayers) -> None:
    """For conditions that every store allows."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to fill the placeholders of a row.

    Attributes:
        name: how the YAML and the tables call it.
        give: the reading that the decoder is given of a row; it keeps the row's length and
            positions unless it stands for another row.
        absent: why it cannot be had of those layers of a store, in words; None where it can.
    """

    name: str
    give: Callable[[Row, EvalContext], Reading]
    absent: Callable[[ActivationSource, ReadLayers], str | None] = always
