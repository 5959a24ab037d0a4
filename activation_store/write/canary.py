"""The canary: a second, independent computation of sampled sequences, compared with the store.

The store is filled by batches and hooks that stop the forward pass; the canary runs single
sequences through the whole model and reads `output_hidden_states`. Swapped rows, a leak of
padding, a wrong layer or an off-by-one all show as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.layout.index import SequenceSpan
from activation_store.layout.plan import Plan
from activation_store.read.reader import ActivationStore
from activation_store.target.load import blocks
from activation_store.target.tokens import Tokens
from core.canonical import digest
from core.errors import StoreError

# largest |stored - recomputed| / |recomputed| of a token, by number format
_COMPUTE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_STORE = {"float32": 0.0, "float16": 1e-3, "bfloat16": 4e-3}


def tolerance(plan: Plan) -> float:
    """Return the largest relative difference (L2, of a token) that rounding explains."""
    return _COMPUTE[plan.compute_dtype] + _STORE[plan.dtype]


def sample_sequences(plan: Plan, rows: int) -> list[SequenceSpan]:
    """Draw `rows` sequences, spread over the lengths, the same for the same plan."""
    n = len(plan.index)
    picked = {min(n - 1, (2 * i + 1) * n // (2 * rows)) for i in range(rows)}
    start = int(digest(plan.digest)[:8], 16)  # so that not every store is judged at the same rows
    return [plan.index.at((i + start) % n) for i in sorted(picked)]


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """How far the store is from the second computation.

    Attributes:
        rows: sequences compared.
        tokens: their tokens.
        max_relative: largest relative difference (L2, of a token at a layer).
        tolerance: largest that is accepted.
    """

    rows: int
    tokens: int
    max_relative: float
    tolerance: float


def check_canary(
    net: nn.Module,
    store: ActivationStore,
    plan: Plan,
    tokens: Mapping[str, Tokens],
    *,
    rows: int = 8,
) -> CanaryResult:
    """Recompute sampled sequences and compare.

    Args:
        net: the target.
        store: the store, complete.
        plan: its plan.
        tokens: the sequences by example id, as they were tokenized.
        rows: sequences to compare.

    Raises:
        StoreError: the store differs by more than the tolerance; names example and layer.
    """
    worst, total = 0.0, 0
    sampled = sample_sequences(plan, rows)
    for placed in sampled:
        ids = tokens[placed.example_id].ids
        if not np.array_equal(store.tokens(placed.example_id), ids):
            raise StoreError(
                f"canary: the store holds other tokens than those of example {placed.example_id}. "
                "The store is refused; this is a fault of the program or of the machine."
            )
        for layer, expected in _compute_plainly(net, ids, plan.layers).items():
            found = store.read(placed.example_id, layer)
            size = np.maximum(np.linalg.norm(expected, axis=1), 1e-12)
            relative = float((np.linalg.norm(found - expected, axis=1) / size).max())
            if not relative <= tolerance(plan):
                raise StoreError(
                    f"canary: layer {layer} of example {placed.example_id} differs from a plain "
                    f"forward pass by {relative:.2g} relative, expected at most "
                    f"{tolerance(plan):.2g}. The store is refused; this is a fault of the program "
                    "or of the machine, not of the data."
                )
            worst = max(worst, relative)
        total += len(ids)
    return CanaryResult(
        rows=len(sampled), tokens=total, max_relative=worst, tolerance=tolerance(plan)
    )


@torch.inference_mode()
def _compute_plainly(
    net: nn.Module, ids: np.ndarray[Any, Any], layers: Sequence[int]
) -> dict[int, np.ndarray[Any, Any]]:
    device = next(net.parameters()).device
    last = len(blocks(net)) - 1
    kept: list[torch.Tensor] = []
    # hidden_states of the last block has passed the final norm, so there a hook is the plain path
    hook = blocks(net)[last].register_forward_hook(
        lambda module, args, out: kept.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    try:
        states = net(
            torch.from_numpy(ids.astype(np.int64))[None].to(device),
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
    finally:
        hook.remove()
    return {k: (kept[0] if k == last else states[k + 1])[0].float().cpu().numpy() for k in layers}
