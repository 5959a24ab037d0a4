"""What a decoder gets of a row: activations, or what stands in their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

UNNAMED_LAYER = -1
"""Block of an activation where the prompt names none, since the decoder reads one layer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The activations of a row, or what stands in their place, as the decoder gets them.

    Attributes:
        vectors: [N, D] activations, or None: the placeholders keep their own embeddings. A tensor
            where a gradient is to reach them (decoder/steering).
        n: tokens that were read; N is n times the layers, one layer's vectors after the other's.
        first_position: position of the first of them in the target's own sequence.
        layers: the layers that the prompt names; empty where it names none, and there is one.
        ids: [n] tokens of a text that stands where the placeholders would (a decoder that reads
            words); None for placeholders.
        counted_from_0: whether positions are counted from the prompt's first token, whatever rule
            the decoder has, as for a text that the target did not see there.
        skipped: [n] int64, tokens left out between the first activation and each; None where they
            are neighbours.
    """

    vectors: np.ndarray | torch.Tensor | None
    n: int
    first_position: int
    layers: tuple[int, ...] = ()
    ids: np.ndarray | None = None
    skipped: np.ndarray | None = None
    counted_from_0: bool = False

    @property
    def array(self) -> np.ndarray | None:
        """The activations [N, D] as an array on the host."""
        if isinstance(self.vectors, torch.Tensor):
            found: np.ndarray = self.vectors.detach().cpu().numpy()
            return found
        return self.vectors

    @property
    def vector_layers(self) -> np.ndarray:
        """[N] int64, block of each activation, or `UNNAMED_LAYER`."""
        return np.repeat(np.array(self.layers or (UNNAMED_LAYER,), np.int64), self.n)

    @property
    def size(self) -> int:
        """Number N of placeholders."""
        return self.n * max(1, len(self.layers))


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Widen 16-bit numbers to float32, and leave wider ones as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
