"""The size of a store before it is written: exact under the codec raw, sampled under lossless."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activation_store.layout.config import CaptureConfig
from activation_store.layout.shard_image import chunk_packer, make_shard_image
from activation_store.model_files.files import ModelFiles
from activation_store.target.capture import Capture
from activation_store.target.host_copy import to_stored
from activation_store.target.load import load_model, use_threads
from activation_store.target.number_format import resolve_section
from activation_store.target.worker_devices import worker_device
from activation_store.write.canary import sample_sequences
from activation_store.write.prepared import prepare_dump
from core.runtime import Runtime

SAMPLED = 16
"""Sequences that an estimate runs the target on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSize:
    """Bytes of all shard files.

    Attributes:
        tokens: tokens of all sequences.
        raw_bytes: under the codec raw, exact.
        lossless_bytes: under the codec lossless, from a sample; None where none was taken.
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
    """Return the size of the store that a dump of `conversations` would make.

    Args:
        conversations: folder with conversations.parquet.
        config: as of the dump.
        model: the target.
        runtime: device and threads.
        sampled: whether the target is run on `SAMPLED` sequences, spread over the lengths, for the
            size under the codec lossless.

    Raises: as `dump`, before it writes anything.
    """
    prepared = prepare_dump(conversations, resolve_section(config, runtime), model)
    plan = prepared.make_plan()
    if not sampled:
        return StoreSize(tokens=plan.tokens, raw_bytes=plan.raw_bytes)
    use_threads(runtime)
    net = load_model(model, dtype=plan.compute_dtype, device=worker_device(runtime, 0))
    capture = Capture(net, plan.layers)
    found = [capture([prepared.tokens[s.example_id].ids]) for s in sample_sequences(plan, SAMPLED)]
    bytes_per_token = 0.0
    for layer in plan.layers:
        values = np.concatenate([to_stored(outputs[layer][0], plan.dtype) for outputs in found])
        chunk = min(plan.chunk_rows, len(values))
        whole = values[: len(values) // chunk * chunk]
        image = make_shard_image(whole, chunk, chunk_packer(plan.dtype, "lossless"))
        bytes_per_token += image.digest.size / len(whole)
    return StoreSize(
        tokens=plan.tokens,
        raw_bytes=plan.raw_bytes,
        lossless_bytes=round(bytes_per_token * plan.tokens) + plan.token_bytes,
    )
