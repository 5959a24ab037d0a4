"""Injection of activations at the placeholders, at the output of one decoder block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from decoder.normalisation import Normaliser
from decoder.reading import UNNAMED_LAYER, at_least_float32

How = Literal["replace", "add"]
_LEAST_NORM = 1e-6
"""A shorter activation has no direction worth adding."""


@dataclass(frozen=True, slots=True)
class Injection:
    """Where and how activations enter the decoder.

    Attributes:
        block: decoder block at whose output they enter; its output is [B, P, D].
        how: `replace` puts the activation v in place of the placeholder's own h (arXiv 2412.08686,
            section 3); `add` makes of it h + |h| v / |v|, so that norms do not depend on where the
            activation was taken (arXiv 2512.15674).
        normaliser: maps activations before they enter; None injects them as they are.
        noise: Gaussian noise on what enters, root mean square as a share of each vector's length.
    """

    block: nn.Module
    how: How = "replace"
    normaliser: Normaliser | None = None
    noise: float = 0.0

    @contextlib.contextmanager
    def __call__(
        self,
        places: torch.Tensor | None,
        vectors: torch.Tensor | None,
        layers: torch.Tensor | None = None,
    ) -> Iterator[None]:
        """Inject `vectors` at `places` of the block's output while the context is open.

        Args:
            places: [N] indices into the flattened [B * P]; None injects nothing.
            vectors: [N, D].
            layers: [N] block of each, or `UNNAMED_LAYER`; None names none.
        """
        if places is None or vectors is None:
            yield
            return

        if self.normaliser is not None:
            if layers is None:
                layers = torch.full_like(places, UNNAMED_LAYER)
            vectors = self.normaliser(vectors, layers)
        if self.noise:
            vectors = _add_noise(vectors, self.noise)
        normalised = vectors

        def inject(module: nn.Module, args: Any, output: Any) -> Any:
            hidden_BPD = output if isinstance(output, torch.Tensor) else output[0]
            flat = hidden_BPD.reshape(-1, hidden_BPD.shape[-1])
            # a model may be spread over several devices
            here, injected = places.to(flat.device), normalised.to(flat.device, flat.dtype)
            if self.how == "add":
                injected = _add_direction(flat.index_select(0, here), injected)
            # index_copy, not a mask: no synchronisation, and the rest keeps its gradient
            new = flat.index_copy(0, here, injected).view_as(hidden_BPD)
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        handle = self.block.register_forward_hook(inject, prepend=True)
        try:
            yield
        finally:
            handle.remove()


def _add_direction(hidden_ND: torch.Tensor, vectors_ND: torch.Tensor) -> torch.Tensor:
    """Add to each hidden state the direction of its vector, at the hidden state's own norm.

    Norms are computed in float32 or wider.
    """
    wide = at_least_float32(vectors_ND)
    hidden_N = at_least_float32(hidden_ND).norm(dim=-1, keepdim=True)
    vectors_N = wide.norm(dim=-1, keepdim=True).clamp_min(_LEAST_NORM)
    moved: torch.Tensor = wide * (hidden_N / vectors_N)
    return hidden_ND + moved.to(hidden_ND.dtype)


def _add_noise(vectors_ND: torch.Tensor, share: float) -> torch.Tensor:
    """Add Gaussian noise that has `share` of each vector's length."""
    wide = at_least_float32(vectors_ND)
    size_N1 = share * wide.norm(dim=-1, keepdim=True) / wide.shape[-1] ** 0.5
    noisy: torch.Tensor = wide + size_N1 * torch.randn_like(wide)
    return noisy
