"""The canary: a second, independent computation of sampled sequences, compared with the store.

The store is filled by batches and hooks that stop the forward pass; the canary runs single
sequences through the model and reads `output_hidden_states`. Swapped rows, a leak of padding, a
wrong layer or an off-by-one all show as a difference. A few sequences are compared before the long
work, in one batch as the dump runs them, and more of the finished store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from activation_store.layout.arrays import to_float32
from activation_store.layout.index import SequenceSpan
from activation_store.layout.plan import Plan
from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture, is_out_of_memory, split_to_fit
from activation_store.target.host_copy import to_stored
from activation_store.target.load import blocks
from activation_store.tokens.tokens import Tokens
from core.documents.canonical import digest
from core.errors import ModelError, StoreError, first_line

# largest |stored - recomputed| / |recomputed| of a token, by number format
_COMPUTE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_STORE = {"float32": 0.0, "float16": 1e-3, "bfloat16": 4e-3}
_ROWS, _FIRST_ROWS = 8, 4
"""Sequences that are compared at the end, and before the long work."""
_TF32 = 5e-3
_FLIPPED = 0.05
"""Largest share of a row's tokens that rounding may send to other experts of a mixture."""


def _tolerance(plan: Plan, net: nn.Module) -> float:
    """Return the largest relative difference (L2, of a token) that rounding explains."""
    compute = _COMPUTE[plan.compute_dtype]
    if next(net.parameters()).device.type == "cuda":  # float32 is multiplied as TF32
        compute = max(compute, _TF32)
    return compute + _STORE[plan.dtype]


def sample_sequences(plan: Plan, rows: int) -> list[SequenceSpan]:
    """Draw `rows` sequences, spread over the lengths, the same for the same plan."""
    n = len(plan.index)
    picked = {min(n - 1, (2 * i + 1) * n // (2 * rows)) for i in range(rows)}
    start = int(digest(plan.digest)[:8], 16)  # so that not every store is judged at the same rows
    return [plan.index.at((i + start) % n) for i in sorted(picked)]


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """Largest differences between the store and the second computation.

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
    net: nn.Module, store: ActivationStore, plan: Plan, tokens: Mapping[str, Tokens]
) -> CanaryResult:
    """Recompute sampled sequences alone, at batch 1, and compare them with the store.

    Args:
        net: the target.
        store: the store, complete.
        plan: its plan.
        tokens: the sequences by example id, as they were tokenized.

    Raises:
        StoreError: the store differs by more than the tolerance; names example and layer.
    """
    worst, total = 0.0, 0
    sampled = sample_sequences(plan, _ROWS)
    for placed in sampled:
        ids = tokens[placed.example_id].ids
        if not np.array_equal(store.tokens(placed.example_id), ids):
            raise StoreError(
                f"canary: the store holds other tokens than those of example {placed.example_id}. "
                "The store is refused; this is a fault of the program or of the machine."
            )
        found = {layer: store.read(placed.example_id, layer) for layer in plan.layers}
        worst = max(worst, _compare(net, plan, placed, ids, found))
        total += len(ids)
    return CanaryResult(
        rows=len(sampled), tokens=total, max_relative=worst, tolerance=_tolerance(plan, net)
    )


def check_first(net: nn.Module, plan: Plan, tokens: Mapping[str, Tokens]) -> None:
    """Compare a few sequences, run as one batch, with a plain computation before the long work.

    Args:
        net: the target.
        plan: of the store that is to be filled.
        tokens: the sequences by example id.

    Raises:
        StoreError: one differs by more than the tolerance; names example and layer.
        ModelError: the model fails, or the device has no room for a single sequence.
    """
    capture = Capture(net, plan.layers)

    def run(sequences: Sequence[SequenceSpan]) -> dict[int, torch.Tensor]:
        try:
            return capture([tokens[s.example_id].ids for s in sequences])
        except ModelError:
            raise
        except Exception as error:  # a config and weights that do not go together fail anywhere
            if is_out_of_memory(error):
                raise
            config: Any = net.config
            raise ModelError(
                f"model of type {config.model_type}: it fails on the first conversation "
                f"({type(error).__name__}: {first_line(error)}). Fetch the model again, or mend "
                "its config.json."
            ) from error

    for outputs, part in split_to_fit(run, sample_sequences(plan, _FIRST_ROWS)):
        for row, placed in enumerate(part):
            found = {
                layer: to_float32(to_stored(values[row, : placed.n_tokens], plan.dtype), plan.dtype)
                for layer, values in outputs.items()
            }
            _compare(net, plan, placed, tokens[placed.example_id].ids, found)


def _compare(
    net: nn.Module,
    plan: Plan,
    placed: SequenceSpan,
    ids: np.ndarray[Any, Any],
    found: Mapping[int, np.ndarray[Any, Any]],
) -> float:
    """Return the largest relative difference of a sequence's tokens from a plain computation.

    Raises:
        StoreError: it is beyond the tolerance.
    """
    worst, most = 0.0, _tolerance(plan, net)
    for layer, expected in _compute_plainly(net, ids, plan.layers).items():
        if not np.isfinite(found[layer]).all():
            alone = np.isfinite(expected).all() or plan.compute_dtype == "float16"
            raise StoreError(
                f"canary, layer {layer}: an activation of example {placed.example_id} is not "
                + (
                    f"finite in {plan.dtype}. Use dump.compute_dtype and dump.store_dtype bfloat16 "
                    "or float32."
                    if alone
                    else "finite in a plain forward pass either, so that the model's weights hold "
                    "what is no number. Fetch the model (or its adapter) again."
                )
            )
        size = np.maximum(np.linalg.norm(expected, axis=1), 1e-12)
        relative_T = np.linalg.norm(found[layer] - expected, axis=1) / size
        if _has_experts(net) and np.mean(~(relative_T <= most)) <= _FLIPPED:
            relative_T = relative_T[relative_T <= most]  # the others went to other experts
        relative = float(relative_T.max(initial=0.0))
        if not relative <= most:
            raise StoreError(
                f"canary: layer {layer} of example {placed.example_id} differs from a plain "
                f"forward pass by {relative:.2g} relative, expected at most {most:.2g}. The store "
                "is refused; this is a fault of the program, of a kernel or of the machine, not of "
                "the data. Try runtime.attn_implementation eager, or dump.compute_dtype float32."
            )
        worst = max(worst, relative)
    return worst


def _has_experts(net: Any) -> bool:
    """Return whether a router sends tokens to experts: rounding then decides near ties."""
    config = net.config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return any((getattr(config, name, None) or 0) > 1 for name in names)


@torch.inference_mode()
def _compute_plainly(
    net: nn.Module, ids: np.ndarray[Any, Any], layers: Sequence[int]
) -> dict[int, np.ndarray[Any, Any]]:
    device = next(net.parameters()).device
    last = len(blocks(net)) - 1
    kept: dict[int, torch.Tensor] = {}

    def keep(block: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            kept[block] = out if isinstance(out, torch.Tensor) else out[0]

        return hook

    hooks = [blocks(net)[block].register_forward_hook(keep(block)) for block in layers]
    try:
        states = net(
            torch.from_numpy(ids.astype(np.int64))[None].to(device),
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
    finally:
        for hook in hooks:
            hook.remove()
    listed = [_to_numpy(state) for state in states]
    found: dict[int, np.ndarray[Any, Any]] = {}
    for k in layers:
        own = _to_numpy(kept[k])
        # hidden_states of the last block has passed the final norm; some families begin the list
        # with the output of block 0 (Mamba), or leave out blocks that do not run (Mllama)
        is_listed = k == last or any(np.array_equal(own, one) for one in listed)
        found[k] = own if is_listed else listed[min(k + 1, last)]
    return found


def _to_numpy(state_1TD: torch.Tensor) -> np.ndarray[Any, Any]:
    out: np.ndarray[Any, Any] = state_1TD[0].float().cpu().numpy()
    return out
