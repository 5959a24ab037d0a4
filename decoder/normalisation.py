"""Normalisation of activations before they enter the decoder.

A few massive features make most of a residual stream's length, and are much the same whatever the
target read; what a hidden control leaves is a change of some percent. Standardised by feature and
brought to the length of what they replace, activations show it.

The same token with the same visible text before it, under several controls, shows what a control
changes. With the covariance C of these changes and the covariance S of all activations, both in
deviations of each feature, the best linear estimate of the change that one activation z holds is
C S^-1 z: the Wiener filter, with the changes as its signal and the visible text as its noise. A
long estimate is a sure one, so estimates are scaled together, not each to one length.

Where nothing is hidden and replies themselves tell controls apart, the covariance of the controls'
mean activations takes the place of C: the directions of linear discriminant analysis.

The statistics are taken from training tokens alone and are saved beside the adapter. The map is
differentiable, so that gradients for steering go through it.

Shapes: L layers that a decoder reads, N vectors, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from core.errors import ModelError
from core.files import write_bytes
from decoder.config import Normalisation
from decoder.reading import at_least_float32

STATISTICS_FILE = "normalisation.safetensors"
FILTERS: tuple[Normalisation, ...] = ("wiener", "discriminant")
"""Normalisations that keep what controls change."""
_STANDARDISED: tuple[Normalisation, ...] = ("standardise", *FILTERS)
_LEAST_DEVIATION = 1e-6
_LEAST_LENGTH = 1e-6
_RIDGE = 0.1
"""Added to the variance of every feature, in its own units, where the filter divides by it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivationStatistics:
    """Mean and spread of the training tokens, by which activations are normalised.

    Attributes:
        mean: [L, D] float32, mean of each feature.
        deviation: [L, D] float32, standard deviation of each feature.
        length: mean length of what the activations replace, at the write layer.
        filter: [L, D, D] float32, the Wiener filter on standardised activations, scaled so that
            estimates have that length on average (root mean square), or None.
        changes: [L, D, D] float32, covariance of what controls change in standardised activations,
            or None.
    """

    mean: np.ndarray
    deviation: np.ndarray
    length: float
    filter: np.ndarray | None = None
    changes: np.ndarray | None = None

    @classmethod
    def measure(cls, tokens: Iterable[np.ndarray], *, length: float) -> ActivationStatistics:
        """Measure mean and deviation of each feature over tokens.

        Args:
            tokens: arrays [L, T, D], of any T each.
            length: mean length of what the activations replace.

        Raises:
            ValueError: there is no token.
        """
        count, total, squares = 0, np.zeros(0), np.zeros(0)
        for vectors_LTD in tokens:
            wide = vectors_LTD.astype(np.float64)
            if not count:
                total, squares = np.zeros(wide[:, 0].shape), np.zeros(wide[:, 0].shape)
            count += wide.shape[1]
            total += wide.sum(1)
            squares += np.square(wide).sum(1)
        if not count:
            raise ValueError("no token to take statistics from")
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        return cls(
            mean=mean.astype(np.float32),
            deviation=np.maximum(np.sqrt(variance), _LEAST_DEVIATION).astype(np.float32),
            length=length,
        )

    def with_filter(
        self, covariance_LDD: np.ndarray, changes_LDD: np.ndarray
    ) -> ActivationStatistics:
        """Return these statistics with the Wiener filter.

        Args:
            covariance_LDD: [L, D, D], of all activations.
            changes_LDD: [L, D, D], covariance of what controls change.
        """
        unit_LDD = self.deviation[:, :, None].astype(np.float64) * self.deviation[:, None, :]
        ridge_DD = _RIDGE * np.eye(unit_LDD.shape[-1])
        standard_LDD = changes_LDD / unit_LDD
        # C S^-1, both symmetric, is the transpose of the solution of S X = C
        all_LDD = covariance_LDD / unit_LDD
        filter_LDD = np.linalg.solve(all_LDD + ridge_DD, standard_LDD).transpose(0, 2, 1)
        # the mean square of an estimate's length, brought to that of what it replaces
        squares_L = (filter_LDD @ all_LDD * filter_LDD).sum((1, 2))
        scale_L11 = self.length / np.sqrt(np.maximum(squares_L, _LEAST_LENGTH))[:, None, None]
        return replace(
            self,
            filter=(scale_L11 * filter_LDD).astype(np.float32),
            changes=standard_LDD.astype(np.float32),
        )

    def save(self, folder: Path) -> None:
        """Write the statistics beside an adapter."""
        tensors = {
            "mean": self.mean,
            "deviation": self.deviation,
            "length": np.array([self.length], np.float32),
        }
        if self.filter is not None and self.changes is not None:
            tensors["filter"] = np.ascontiguousarray(self.filter)
            tensors["changes"] = np.ascontiguousarray(self.changes)
        write_bytes(folder / STATISTICS_FILE, save(tensors))

    @classmethod
    def load(cls, folder: Path) -> ActivationStatistics:
        """Read the statistics that `save` wrote.

        Raises:
            ModelError: they are missing or cannot be read.
        """
        path = folder / STATISTICS_FILE
        try:
            found = load_file(path)
            return cls(
                mean=found["mean"],
                deviation=found["deviation"],
                length=float(found["length"][0]),
                filter=found.get("filter"),
                changes=found.get("changes"),
            )
        except (OSError, SafetensorError, KeyError, IndexError) as error:
            raise ModelError(
                f"{path}: no statistics of activations can be read ({type(error).__name__}), and "
                "the decoder normalises what it reads. Take the folder whole, as train wrote it."
            ) from error


class Normaliser:
    """Maps activations of the layers that a decoder reads to what is injected.

    Args:
        how: which map; `difference` is `length`, as the source of activations has taken off the
            rest (decoder/sources/difference.py).
        statistics: of the training tokens.
        layers: the L blocks, counted from 0, that the statistics are of.
        device: where activations are.
    """

    def __init__(
        self,
        how: Normalisation,
        statistics: ActivationStatistics,
        layers: Sequence[int],
        device: torch.device,
    ) -> None:
        self.how = how
        self.statistics = statistics
        self._mean_LD = torch.from_numpy(statistics.mean).to(device)
        self._deviation_LD = torch.from_numpy(statistics.deviation).to(device)
        self._filter_LDD = (
            None if statistics.filter is None else torch.from_numpy(statistics.filter).to(device)
        )
        row_of_block = torch.zeros(max(layers) + 2, dtype=torch.long)
        for row, block in enumerate(layers):
            row_of_block[block] = row
        # the last entry is that of UNNAMED_LAYER: a decoder that reads one layer names none
        self._row_of_block = row_of_block.to(device)

    def __call__(self, vectors_ND: torch.Tensor, block_N: torch.Tensor) -> torch.Tensor:
        """Normalise vectors in float32 or wider; gradients pass.

        Args:
            vectors_ND: activations.
            block_N: int64, block of each, or `UNNAMED_LAYER`.
        """
        if self.how == "none":
            return vectors_ND
        found = at_least_float32(vectors_ND)
        row_N = self._row_of_block[block_N]
        if self.how in ("centre", *_STANDARDISED):
            found = found - self._mean_LD.index_select(0, row_N)
        if self.how in _STANDARDISED:
            found = found / self._deviation_LD.index_select(0, row_N)
        if self.how in FILTERS:
            return self._filter(found, row_N)
        length = found.norm(dim=-1, keepdim=True).clamp_min(_LEAST_LENGTH)
        scaled: torch.Tensor = found * (self.statistics.length / length)
        return scaled

    def _filter(self, vectors_ND: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
        assert self._filter_LDD is not None, "a decoder's statistics are those of its normalisation"
        found = torch.zeros_like(vectors_ND)
        for row, filter_DD in enumerate(self._filter_LDD):
            own_N1 = (row_N == row)[:, None]
            found = torch.where(own_N1, vectors_ND @ filter_DD.to(vectors_ND.dtype).T, found)
        return found

    def origin_and_unit(self, layers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the map has its origin, and the unit of each feature; [L, D] each.

        Args:
            layers: L blocks, counted from 0.
        """
        rows = self._row_of_block[list(layers)]
        mean, deviation = self._mean_LD[rows], self._deviation_LD[rows]
        return (
            mean if self.how in ("centre", *_STANDARDISED) else torch.zeros_like(mean),
            deviation if self.how in _STANDARDISED else torch.ones_like(deviation),
        )

    def changes(self, layers: Sequence[int]) -> torch.Tensor | None:
        """Return the covariance of what controls change, in those units; [L, D, D] or None.

        Args:
            layers: L blocks, counted from 0.
        """
        if self.statistics.changes is None:
            return None
        found = torch.from_numpy(self.statistics.changes).to(self._mean_LD.device)
        return found[self._row_of_block[list(layers)]]
