"""Lengths of activations and of their shifts, measured as the decoder reads them.

Shapes: L layers, n vectors of each, N = L * n, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from decoder.model import Decoder

LEAST_NORM = 1e-12
"""Norm that a gradient or shift of 0 is divided by."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The norm in which activations and their shifts are measured, as the decoder reads them.

    A decoder that standardises sees each feature in units of its deviation, from its mean. Steepest
    descent in those units moves a feature by as much as it varies; in raw units a few massive
    features would set the length of a step, and the quietest features would take it. One that
    filters out what controls change knows the covariance of these changes as well: steepest descent
    measured by it goes where controls move activations, and not wherever the decoder can be fooled.

    Attributes:
        origin_LD: [L, D] where lengths are measured from.
        unit_LD: [L, D] what each feature is measured in.
        changes_LDD: [L, D, D] covariance of what controls change, in these units, or None.
    """

    origin_LD: torch.Tensor
    unit_LD: torch.Tensor
    changes_LDD: torch.Tensor | None = None

    @classmethod
    def of(cls, decoder: Decoder) -> Geometry:
        """Return the geometry of a decoder; of one that does not normalise, that of raw vectors."""
        layers = decoder.select_layers().layers
        if decoder.normaliser is None:
            size = decoder.shape.d_model
            zeros = torch.zeros(len(layers), size, device=decoder.device)
            return cls(zeros, zeros + 1)
        origin_LD, unit_LD = decoder.normaliser.origin_and_unit(layers)
        return cls(origin_LD, unit_LD, decoder.normaliser.changes(layers))

    def of_layer(self, place: int) -> Geometry:
        """Return the geometry of one of the layers."""
        changes = self.changes_LDD
        return Geometry(
            self.origin_LD[place][None],
            self.unit_LD[place][None],
            None if changes is None else changes[place][None],
        )

    def slope(self, gradient_ND: torch.Tensor) -> torch.Tensor:
        """Return the direction of steepest ascent, in these units; [L * n, D] as the gradient."""
        slope_ND = gradient_ND * self.unit_of(len(gradient_ND) // len(self.unit_LD))
        if self.changes_LDD is None:
            return slope_ND
        slope_LnD = slope_ND.view(len(self.unit_LD), -1, slope_ND.shape[1])
        return (slope_LnD @ self.changes_LDD).view_as(slope_ND)

    def unit_of(self, n: int) -> torch.Tensor:
        """Return the units [L * n, D] of n vectors of each layer."""
        return self.unit_LD.repeat_interleave(n, 0)

    def lengths(self, vectors_ND: torch.Tensor) -> torch.Tensor:
        """Measure activations [L * n, D], each layer's after the other's; [L * n, 1]."""
        n = len(vectors_ND) // len(self.unit_LD)
        moved = vectors_ND - self.origin_LD.repeat_interleave(n, 0)
        lengths_N1: torch.Tensor = (moved / self.unit_of(n)).norm(dim=-1, keepdim=True)
        return lengths_N1


def limit_lengths(vectors_ND: torch.Tensor, limits_N1: torch.Tensor) -> torch.Tensor:
    """Shorten the vectors that are longer than their limit to it."""
    lengths_N1 = vectors_ND.norm(dim=-1, keepdim=True).clamp_min(LEAST_NORM)
    limited: torch.Tensor = vectors_ND * (limits_N1 / lengths_N1).clamp_max(1.0)
    return limited
