"""The rows of one shard: taken over from other stores, or computed in batches by the target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from activation_store.layout.arrays import PHYSICAL, layer_array
from activation_store.layout.plan import Placed, Plan
from activation_store.target.capture import Capture, within_memory
from activation_store.target.to_host import Arriving, ToHost
from activation_store.target.tokens import Tokens
from activation_store.write.reuse import Others

Content = dict[str, np.ndarray]
"""[shard_rows, ...] by array name, in the arrays' own types."""
Found = list[tuple[Arriving, Sequence[Placed]]]
"""Activations of the target, and the sequences that they are of."""


@dataclass(frozen=True, slots=True)
class Part:
    """A batch of a shard.

    Attributes:
        known: layer, sequence and bits of what another store holds.
        lacking: the layers that no store holds of a sequence; none of it, no entry.
    """

    batch: Sequence[Placed]
    known: Sequence[tuple[int, Placed, np.ndarray]]
    lacking: Mapping[Placed, Sequence[int]]

    @property
    def tokens(self) -> int:
        """Tokens of its sequences."""
        return sum(s.n_tokens for s in self.batch)


class Filling:
    """A shard that is being filled, part by part.

    A forward pass may run in another thread (`run`); all else is one thread's.

    Args:
        rows: tokens by example id.
        layers: those that are to be filled.

    Attributes:
        shard: its number.
        computed: tokens that the target was run on, of the parts put in place.
    """

    def __init__(
        self,
        plan: Plan,
        rows: Mapping[str, Tokens],
        shard: int,
        layers: Sequence[int],
        to_host: ToHost,
    ) -> None:
        self.shard, self.computed = shard, 0
        self._plan, self._rows, self._layers, self._to_host = plan, rows, layers, to_host
        self._batches = list(plan.batches(shard))
        self._left = len(self._batches)
        self._content: Content = {}

    @property
    def whole(self) -> bool:
        """Whether all parts are in place."""
        return not self._left

    @property
    def content(self) -> Content:
        """What is in place; memory is taken for it when the first part is put."""
        return self._content

    def parts(self, others: Others) -> Iterator[Part]:
        """Its batches in order, with what `others` hold of them, layer by layer."""
        for batch in self._batches:
            known, lacking = [], dict[Placed, list[int]]()
            for s in batch:
                for layer in self._layers:
                    bits = others.bits(s.example_id, layer, self._rows[s.example_id])
                    if bits is None:
                        lacking.setdefault(s, []).append(layer)
                    else:
                        known.append((layer, s, bits))
            yield Part(batch, known, lacking)

    def run(self, net: nn.Module, part: Part) -> Found:
        """Run the target on what is lacking.

        Raises:
            ModelError: the device has no room for a single sequence.
        """
        if not part.lacking:
            return []
        capture = Capture(net, self._layers)

        def start(sequences: Sequence[Placed]) -> Arriving:
            return self._to_host.start(capture([self._rows[s.example_id].ids for s in sequences]))

        return list(within_memory(start, list(part.lacking)))

    def put(self, part: Part, found: Found) -> None:
        """Put a part in place, the activations that `run` found with it."""
        if not self._content:
            self._content = self._empty()
        for layer, s, bits in part.known:
            self._content[layer_array(layer)][self._rows_of(s)] = bits
        for arriving, sequences in found:
            values = arriving.wait()
            for i, s in enumerate(sequences):
                for layer in part.lacking[s]:
                    here = self._content[layer_array(layer)]
                    here[self._rows_of(s)] = values[layer][i, : s.n_tokens]
        self.computed += sum(s.n_tokens for s in part.lacking)
        self._left -= 1

    def _empty(self) -> Content:
        """Token ids and segments, and no activations yet."""
        plan = self._plan
        wide = (plan.shard_rows, plan.d_model)
        content: Content = {
            "tokens": np.zeros(plan.shard_rows, np.int32),
            "segments": np.zeros(plan.shard_rows, np.uint8),
            **{layer_array(k): np.zeros(wide, PHYSICAL[plan.dtype]) for k in self._layers},
        }
        for s in plan.shard(self.shard):
            content["tokens"][self._rows_of(s)] = self._rows[s.example_id].ids
            content["segments"][self._rows_of(s)] = self._rows[s.example_id].segments
        return content

    def _rows_of(self, s: Placed) -> slice:
        start = s.row_start - self.shard * self._plan.shard_rows
        return slice(start, start + s.n_tokens)
