"""Activations less those of the same visible text without the control, computed on the fly.

The difference is what the control changed, without what the text itself contributes. The target
runs twice at every read; a store would need one more row for each visible text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activation_store.layout.config import CaptureConfig
from activation_store.model_files.files import ModelFiles
from activation_store.target.swaps import without_control
from core.errors import DataError
from core.records.tables import Conversation
from decoder.sources.live import LiveActivations


class DifferenceActivations(LiveActivations):
    """`LiveActivations` whose visible tokens are less those of the text without its control."""

    def __init__(
        self, model: ModelFiles, rows: Sequence[Conversation], capture: CaptureConfig
    ) -> None:
        """Tokenize `rows` and their visible texts.

        Args:
            model: the target's files.
            rows: conversations whose activations may be read.
            capture: as for `LiveActivations`.

        Raises:
            DataError, ModelError: as `LiveActivations` raises them.
        """
        plain = {row.example_id: found for row in rows if (found := without_control(row))}
        distinct = {found.example_id: found for found in plain.values()}
        super().__init__(model, [*rows, *distinct.values()], capture)
        # by the visible tokens, as a row and its swapped self share them
        self._plain: dict[bytes, str] = {}
        for row, found in plain.items():
            if row in self and found.example_id in self:
                visible = self._visible(row)
                if np.array_equal(self.tokens(found.example_id)[-len(visible) :], visible):
                    self._plain[visible.tobytes()] = found.example_id

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray]:
        """Run the target on an example and on its visible text alone; return the differences.

        The control's own tokens, which have nothing to be compared with, are zeros.

        Raises:
            DataError: the example hides no control, or its visible text alone has other tokens.
        """
        visible = self._visible(example_id)
        plain = self._plain.get(visible.tobytes())
        if plain is None:
            raise DataError(
                f"example {example_id}: its text cannot be read without the control, which "
                "normalisation `difference` needs. Leave view control out of train.views "
                "and evaluate.views."
            )
        size = len(visible)
        own, alone = super().read_layers(example_id, layers), super().read_layers(plain, layers)
        found = []
        for with_control, without in zip(own, alone, strict=True):
            changed = np.zeros_like(with_control)
            changed[-size:] = with_control[-size:] - without[-size:]
            found.append(changed)
        return found

    def _visible(self, example_id: str) -> np.ndarray:
        """Return the tokens behind those that masking withholds."""
        return self.tokens(example_id)[self.place(example_id).withheld :]
