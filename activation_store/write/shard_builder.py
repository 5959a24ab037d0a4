"""Filling one shard in memory: rows from other stores, and rows that the target computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from activation_store.layout.arrays import PHYSICAL, array_file, layer_array
from activation_store.layout.file_digests import FileDigest
from activation_store.layout.index import SequenceSpan
from activation_store.layout.plan import Plan
from activation_store.target.capture import Capture, split_to_fit
from activation_store.target.host_copy import HostCopier, HostCopy
from activation_store.tokens.token_table import TokenTable
from activation_store.write.reuse import ReusableStores


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """A forward batch of a shard, whose activations are being copied to the CPU.

    Attributes:
        sequences: its sequences.
        reused: layer, sequence and bits [T, D] of what another store holds.
        missing: the layers of each sequence that no store holds.
        computed: activations of the target, and the sequences that they are of.
    """

    sequences: Sequence[SequenceSpan]
    reused: Sequence[tuple[int, SequenceSpan, np.ndarray[Any, Any]]]
    missing: Mapping[SequenceSpan, Sequence[int]]
    computed: Sequence[tuple[HostCopy, Sequence[SequenceSpan]]]

    @property
    def tokens(self) -> int:
        """Tokens of its sequences."""
        return sum(s.n_tokens for s in self.sequences)

    @property
    def forward_tokens(self) -> int:
        """Tokens that the target is run on."""
        return sum(s.n_tokens for s in self.missing)


class ShardBuilder:
    """Assembles one shard in memory, batch by batch.

    Args:
        plan: the store's plan.
        shard: the shard's number.
        tokens: the sequences' tokens by example id.
        reusable: stores from which rows are taken over.
        reused_files: the shard's files that are in place already, from such a store.

    Attributes:
        content: [shard_rows, ...] by array name; memory is taken for it with the first batch.
    """

    def __init__(
        self,
        plan: Plan,
        shard: int,
        *,
        tokens: TokenTable,
        reusable: ReusableStores,
        reused_files: Mapping[str, FileDigest],
    ) -> None:
        self.shard, self.reused_files = shard, reused_files
        self.content: dict[str, np.ndarray[Any, Any]] = {}
        self._plan, self._tokens, self._reusable = plan, tokens, reusable
        self._layers = [
            k for k in plan.layers if array_file(layer_array(k), shard) not in reused_files
        ]
        self._batches = list(plan.batches(shard))
        self._left = len(self._batches)

    @property
    def complete(self) -> bool:
        """Whether all batches are in place."""
        return not self._left

    def run_batches(self, capture: Capture, copier: HostCopier) -> Iterator[ShardBatch]:
        """Run the target, batch by batch, on the sequences that no other store holds.

        Raises:
            ModelError: the device has no room for a single sequence.
        """

        def run(sequences: Sequence[SequenceSpan]) -> HostCopy:
            return copier.start(capture([self._tokens[s.example_id].ids for s in sequences]))

        for sequences in self._batches:
            reused, missing = [], dict[SequenceSpan, list[int]]()
            for s in sequences:
                for layer in self._layers:
                    bits = self._reusable.read_bits(s.example_id, layer, self._tokens[s.example_id])
                    if bits is None:
                        missing.setdefault(s, []).append(layer)
                    else:
                        reused.append((layer, s, bits))
            computed = list(split_to_fit(run, list(missing))) if missing else []
            yield ShardBatch(sequences, reused, missing, computed)

    def put(self, batch: ShardBatch) -> None:
        """Put the rows of a batch in place, once its copy to the CPU has ended."""
        if not self.content:
            self.content = begin_shard(self._plan, self._layers)
        for layer, s, bits in batch.reused:
            self.content[layer_array(layer)][self._plan.rows_of(s)] = bits
        for copy, sequences in batch.computed:
            values = copy.wait()
            for i, s in enumerate(sequences):
                for layer in batch.missing[s]:
                    rows = self.content[layer_array(layer)]
                    rows[self._plan.rows_of(s)] = values[layer][i, : s.n_tokens]
        self._left -= 1


def begin_shard(plan: Plan, layers: Iterable[int]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a shard's activations at these layers by array, all zeros."""
    wide = (plan.shard_rows, plan.d_model)
    return {layer_array(k): np.zeros(wide, PHYSICAL[plan.dtype]) for k in layers}
