"""What a store will take on the disk: exact as raw shards, from a sample as packed ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan
from activation_store.layout.shard_image import packer, shard_image
from activation_store.target.capture import Capture
from activation_store.target.files import ModelFiles
from activation_store.target.load import load_model, use_threads
from activation_store.target.to_host import to_stored
from activation_store.target.tokens import Tokens
from activation_store.write.canary import sample
from activation_store.write.dump import plans_of
from activation_store.write.workers import worker_device
from core.runtime import Runtime

SAMPLED = 16
"""Sequences that an estimate runs the target on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSize:
    """Bytes of all shard files.

    Attributes:
        tokens: tokens of all sequences.
        raw_bytes: under the codec raw, exact.
        lossless_bytes: under the codec lossless, told from a sample; None where none was taken.
    """

    tokens: int
    raw_bytes: int
    lossless_bytes: int | None = None


def store_size(
    conversations: Path,
    *,
    config: CaptureConfig,
    model: ModelFiles,
    runtime: Runtime,
    sampled: bool = False,
) -> StoreSize:
    """Size of the store that a dump of `conversations` would make.

    Args:
        conversations: folder with conversations.parquet.
        sampled: whether the target is run on `SAMPLED` sequences, spread over the lengths, to tell
            the size under the codec lossless.

    Raises: as `dump`, before it writes anything.
    """
    plans, rows, _ = plans_of(conversations, config, model)
    plan = plans()
    if not sampled:
        return StoreSize(tokens=plan.tokens, raw_bytes=plan.raw_bytes)
    use_threads(runtime)
    device = worker_device(runtime, 0)
    capture = Capture(load_model(model, dtype=plan.compute_dtype, device=device), plan.layers)
    return StoreSize(
        tokens=plan.tokens,
        raw_bytes=plan.raw_bytes,
        lossless_bytes=_packed(plan, rows, capture),
    )


def _packed(plan: Plan, rows: dict[str, Tokens], capture: Capture) -> int:
    """Bytes of the whole store, at those that a token of the sample takes."""
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in plan.layers}
    for s in sample(plan, SAMPLED):
        for layer, values in capture([rows[s.example_id].ids]).items():
            found[layer].append(to_stored(values[0], plan.dtype))
    a_token = 0.0
    for parts in found.values():
        values = np.concatenate(parts)
        chunk = min(plan.chunk_rows, len(values))
        whole = values[: len(values) // chunk * chunk]
        size, _ = shard_image(whole, chunk, packer(plan.dtype, "lossless")).mark
        a_token += size / len(whole)
    ids_and_segments = 5 * plan.n_shards * plan.shard_rows
    return round(a_token * plan.tokens) + ids_and_segments
