"""Activations at the placeholders, at the output of one decoder block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

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
    """

    block: nn.Module
    how: How = "replace"

    @contextlib.contextmanager
    def __call__(self, places: torch.Tensor | None, vectors: torch.Tensor | None) -> Iterator[None]:
        """Within, the output of the block holds `vectors` at `places`.

        Args:
            places: [N] indices into the flattened [B * P]; None injects nothing.
            vectors: [N, D].
        """
        if places is None or vectors is None:
            yield
            return

        def inject(module: nn.Module, args: Any, output: Any) -> Any:
            hidden_BPD = output if isinstance(output, torch.Tensor) else output[0]
            flat = hidden_BPD.reshape(-1, hidden_BPD.shape[-1])
            given = vectors.to(flat.dtype)
            if self.how == "add":
                given = _added(flat.index_select(0, places), given)
            # index_copy, not a mask: no wait for the device, and the rest keeps its gradient
            new = flat.index_copy(0, places, given).view_as(hidden_BPD)
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        handle = self.block.register_forward_hook(inject, prepend=True)
        try:
            yield
        finally:
            handle.remove()


def _added(own_ND: torch.Tensor, given_ND: torch.Tensor) -> torch.Tensor:
    """`own` moved along `given` by its own length; the lengths are taken in float32."""
    own_N = own_ND.float().norm(dim=-1, keepdim=True)
    given_N = given_ND.float().norm(dim=-1, keepdim=True).clamp_min(_LEAST_NORM)
    return own_ND + (given_ND.float() * (own_N / given_N)).to(own_ND.dtype)
