"""A writer: leases a shard, computes it, commits it, and goes on until none is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from activation_store.capture import Capture, to_stored
from activation_store.commits import commit_path, commit_shard
from activation_store.layout import PHYSICAL, layer_array, open_arrays
from activation_store.leases import LeaseLost, Leases
from activation_store.plan import Plan
from activation_store.spans import Tokens
from generators.progress import Progress, silent

_LOG = logging.getLogger(__name__)
_WAIT = 0.05
"""Seconds between two looks at shards that other writers are at."""


@dataclass(slots=True)
class Filled:
    """What one writer did.

    Attributes:
        tokens: tokens of its shards.
        seconds: seconds of its forward passes.
    """

    tokens: int = 0
    seconds: float = 0.0


def fill(
    out: Path,
    plan: Plan,
    rows: Mapping[str, Tokens],
    net: nn.Module,
    missing: Sequence[int],
    progress: Progress = silent,
    *,
    leases: Leases | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Filled:
    """Compute and commit shards, beside other writers or alone, until all are committed.

    Args:
        rows: tokens by example id.
        missing: shards without a record, in the order in which they are tried.
        leases: this writer's; its own where none are given.
        wanted: asked before each shard; the writer ends where it says no.

    Raises:
        StoreError: an activation is not finite.
        StorageError: the disk is full; committed shards stay.
    """
    leases = leases or Leases(out)
    arrays = open_arrays(out, plan.layers, write=True)
    capture = Capture(net, plan.layers)
    filled = Filled()
    left = dict.fromkeys(missing)
    by_shard = {shard: sum(s.n_tokens for s in plan.shard(shard)) for shard in left}
    done = plan.tokens - sum(by_shard.values())

    def tell(tokens: int) -> None:
        progress(done + tokens, plan.tokens, "tokens")

    tell(0)
    while left and wanted():
        shard = leases.take(left)
        try:
            for gone in [s for s in left if commit_path(out, s).exists()]:
                done += by_shard[gone]
                del left[gone]
            if shard is None:  # others are at all that is left
                time.sleep(_WAIT)
            elif shard in left:
                content = _compute(plan, rows, shard, capture, filled, tell, leases)
                leases.renew(shard)
                if not commit_path(out, shard).exists():
                    commit_shard(out, plan, arrays, shard, content)
                    filled.tokens += by_shard[shard]
                done += by_shard[shard]
                del left[shard]
        except LeaseLost as lost:
            _LOG.warning("store %s: %s It goes on with another.", out, lost)
        finally:
            if shard is not None:
                leases.release(shard)
    return filled


def _compute(
    plan: Plan,
    rows: Mapping[str, Tokens],
    shard: int,
    capture: Capture,
    filled: Filled,
    tell: Callable[[int], None],
    leases: Leases,
) -> dict[str, np.ndarray]:
    """The rows of one shard of every array."""
    content = _empty(plan)
    base = shard * plan.shard_rows
    tokens = 0
    for batch in plan.batches(shard):
        leases.renew(shard)
        start = time.perf_counter()
        found = capture([rows[s.example_id].ids for s in batch])
        stored = {k: to_stored(values, plan.dtype) for k, values in found.items()}
        filled.seconds += time.perf_counter() - start
        for i, s in enumerate(batch):
            place = slice(s.row_start - base, s.row_start - base + s.n_tokens)
            content["tokens"][place] = rows[s.example_id].ids
            content["segments"][place] = rows[s.example_id].segments
            for k, values in stored.items():
                content[layer_array(k)][place] = values[i, : s.n_tokens]
        tokens += sum(s.n_tokens for s in batch)
        tell(tokens)
    return content


def _empty(plan: Plan) -> dict[str, np.ndarray]:
    wide = (plan.shard_rows, plan.d_model)
    return {
        **{layer_array(k): np.zeros(wide, PHYSICAL[plan.dtype]) for k in plan.layers},
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }
