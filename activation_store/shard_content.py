"""The rows of one shard: taken over from other stores, or computed in batches by the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from activation_store.capture import Capture, within_memory
from activation_store.layout import PHYSICAL, layer_array
from activation_store.plan import Placed, Plan
from activation_store.sharing import Others
from activation_store.spans import Tokens
from activation_store.to_host import Arriving, ToHost

T = TypeVar("T")
Content = dict[str, np.ndarray]
"""[shard_rows, ...] by array name, in the arrays' own types."""


def tokens_of(plan: Plan, rows: Mapping[str, Tokens], shard: int) -> Content:
    """Token ids and segments of one shard."""
    content: Content = {
        "tokens": np.zeros(plan.shard_rows, np.int32),
        "segments": np.zeros(plan.shard_rows, np.uint8),
    }
    for s in plan.shard(shard):
        content["tokens"][_rows_of(s, plan)] = rows[s.example_id].ids
        content["segments"][_rows_of(s, plan)] = rows[s.example_id].segments
    return content


def activations_of(
    plan: Plan,
    rows: Mapping[str, Tokens],
    shard: int,
    capture: Capture,
    others: Others,
    tell: Callable[[int], None],
) -> tuple[Content, int]:
    """Activations of one shard at the layers of `capture`, and how many tokens were computed.

    What `others` hold is copied from them, layer by layer; a sequence that lacks one is computed.

    Args:
        tell: called with the number of tokens that have just been put in place.

    Raises:
        ModelError: the device has no room for a single sequence.
    """
    wide = (plan.shard_rows, plan.d_model)
    content: Content = {
        layer_array(k): np.zeros(wide, PHYSICAL[plan.dtype]) for k in capture.layers
    }
    lacking: dict[str, list[int]] = {}
    to_host = ToHost(capture.device, plan.dtype)

    def start(batch: Sequence[Placed]) -> Arriving:
        return to_host.start(capture([rows[s.example_id].ids for s in batch]))

    def begun() -> Iterator[tuple[Arriving, Sequence[Placed]]]:
        for batch in plan.batches(shard):
            for s in batch:
                lacking[s.example_id] = []
                for layer in capture.layers:
                    bits = others.bits(s.example_id, layer, rows[s.example_id])
                    if bits is None:
                        lacking[s.example_id].append(layer)
                    else:
                        content[layer_array(layer)][_rows_of(s, plan)] = bits
            unknown = [s for s in batch if lacking[s.example_id]]
            tell(sum(s.n_tokens for s in batch if not lacking[s.example_id]))
            if unknown:
                yield from within_memory(start, unknown)

    computed = 0
    for arriving, batch in _one_behind(begun()):
        values = arriving.wait()
        for i, s in enumerate(batch):
            for layer in lacking.pop(s.example_id):
                content[layer_array(layer)][_rows_of(s, plan)] = values[layer][i, : s.n_tokens]
        found = sum(s.n_tokens for s in batch)
        computed += found
        tell(found)
    return content, computed


def _one_behind(parts: Iterable[T]) -> Iterator[T]:
    """Each of `parts` once the next one has begun, so that the device always has work."""
    held: list[T] = []
    for part in parts:
        held.append(part)
        if len(held) > 1:
            yield held.pop(0)
    yield from held


def _rows_of(s: Placed, plan: Plan) -> slice:
    """Rows of a sequence within its shard."""
    start = s.row_start - s.shard * plan.shard_rows
    return slice(start, start + s.n_tokens)
