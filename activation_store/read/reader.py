"""A reader of stores: committed shards only, checked against their digests when first read.

Raw shards are memory-mapped and cost no memory of their own; of compressed ones, as many decoded
shards are kept as a limit allows. Several threads may read at once, and a store that is sent to
another process is opened anew there.

Shapes: T tokens of a sequence, D d_model.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.arrays import (
    COMMITS,
    INDEX_FILE,
    PLAN_FILE,
    layer_array,
    open_arrays,
    shard_file,
    to_float32,
)
from activation_store.layout.file_digests import find_damage
from activation_store.layout.index import SequenceIndex, SequenceSpan
from activation_store.layout.plan import read_plan
from activation_store.layout.root_record import read_committed
from activation_store.read.shard_rows import ShardRows, map_shard
from core.errors import DamagedError, DataError, StoreError
from core.text.wording import shortened

MAX_MAPPED = 256
"""Most shard files that are open at once; a mapping keeps its file open."""


class ActivationStore:
    """A store opened for reading.

    Attributes:
        root: the store's folder.
        plan: what plan.json says (layers, d_model, dtype, target, ...).
        index: place of each sequence by example id, committed or not.
        layers: the read layers that it holds.
        d_model: width of an activation.
        codec: how activations are packed, `raw` or `lossless`.
        commits: committed shards by number.
        complete: whether every shard of the plan is committed.
        last_tokens: most tokens of a row that its decoder reads, the last ones; None for all.
    """

    def __init__(self, root: Path, *, cache_mb: int = 512, last_tokens: int | None = None) -> None:
        """Open the store at `root`, keeping at most `cache_mb` MiB of decoded shards in memory.

        Raises:
            StoreError: there is no store, or one of another version of the layout.
            DamagedError: its plan, metadata, index or commit records are not as they were written.
        """
        if not (root / PLAN_FILE).is_file() and not (root / COMMITS).is_dir():
            raise StoreError(f"store {root}: no activation store is here (no {PLAN_FILE}).")
        self.root = root
        self.last_tokens = last_tokens
        self.plan: dict[str, Any] = read_plan(root)
        for name, fault in find_damage(root, self.plan["files"]).items():
            raise DamagedError(f"store {root}: {name} is {fault}.", root / name)
        self.index = SequenceIndex.read(root / INDEX_FILE)
        self.layers: tuple[int, ...] = tuple(self.plan["layers"])
        self.d_model: int = self.plan["d_model"]
        self.codec: str = self.plan["codec"]
        self.commits = read_committed(root, self.plan["digest"])
        self.complete = len(self.commits) == self.plan["n_shards"]
        self._arrays = open_arrays(root, self.layers)
        self._shard_rows: int = self.plan["shard_rows"]
        self._checked: set[str] = set()
        self._cache: OrderedDict[tuple[str, int], ShardRows] = OrderedDict()
        self._cache_bytes = cache_mb << 20
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., ActivationStore], tuple[Path]]:
        return functools.partial(
            ActivationStore, cache_mb=self._cache_bytes >> 20, last_tokens=self.last_tokens
        ), (self.root,)

    def close(self) -> None:
        """Close files and drop decoded shards; reading on opens them anew, without a new check."""
        with self._lock:
            self._cache.clear()

    @property
    def cached_bytes(self) -> int:
        """Bytes of the decoded shards that are kept in memory."""
        return sum(shard.nbytes for shard in self._cache.values())

    def only_layer(self, layer: int | None) -> int:
        """Return the layer to read: `layer`, or the store's only one.

        Raises:
            StoreError: the store has not that layer, or several and none was named.
        """
        if layer is None:
            if len(self.layers) != 1:
                raise StoreError(
                    f"store {self.root}: it has layers {list(self.layers)}; "
                    "say which one to read (train.decoder.read_layer)."
                )
            return self.layers[0]
        if layer not in self.layers:
            raise StoreError(
                f"store {self.root}: it has layers {list(self.layers)}, got {layer}. "
                "Dump that layer, or read another."
            )
        return layer

    def check_target(self, digests: dict[str, str]) -> None:
        """Refuse a model that is not the store's own.

        Raises:
            StoreError: shows the first difference, both sides.
        """
        own = self.plan["target"]
        for name in sorted(own.keys() | digests.keys()):
            if own.get(name) != digests.get(name):
                raise StoreError(
                    f"store {self.root}: it was taken from another target: {name} is "
                    f"{_short(own.get(name))} in the store and {_short(digests.get(name))} in the "
                    "model. Dump again with this model, or use the store's own."
                )

    def read(self, example_id: str, layer: int) -> np.ndarray[Any, Any]:
        """Read activations [T, D] float32 of one example at the output of block `layer`.

        Raises:
            DataError: the example is not in the store.
            StoreError: its shard is not committed.
            DamagedError: the shard's bytes are not those committed.
        """
        return to_float32(self.bits(example_id, layer), self.plan["dtype"])

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray[Any, Any]]:
        """Read activations [T, D] float32 of one example at each of several layers.

        Raises: as `read`.
        """
        return [self.read(example_id, layer) for layer in layers]

    def bits(self, example_id: str, layer: int) -> np.ndarray[Any, Any]:
        """Read activations [T, D] of one example as they are stored (bfloat16 as uint16).

        The array is read-only.

        Raises: as `read`.
        """
        return self.rows(layer_array(layer), example_id)

    def rows(self, name: str, example_id: str) -> np.ndarray[Any, Any]:
        """Read the rows [T, ...] of one example in the array `name`, as they are stored.

        The array is read-only.

        Raises: as `read`.
        """
        try:
            shard, row, n = self.index.rows_of(example_id)
        except KeyError:
            self.place(example_id)  # names it
            raise
        start = row - shard * self._shard_rows
        found = self._cache.get((name, shard))
        if found is None or found.nbytes:  # a mapped shard costs nothing to keep, and needs no lock
            with self._lock:
                found = self._shard(name, shard)
        return found.read(start, start + n)

    def tokens(self, example_id: str) -> np.ndarray[Any, Any]:
        """Read the token ids [T] int32 of one example."""
        return self.rows("tokens", example_id)

    def segments(self, example_id: str) -> np.ndarray[Any, Any]:
        """Read the segment codes [T] uint8 of one example (activation_store/tokens/tokens.py)."""
        return self.rows("segments", example_id)

    def __contains__(self, example_id: str) -> bool:
        return example_id in self.index

    def place(self, example_id: str) -> SequenceSpan:
        """Return where an example lies.

        Raises:
            DataError: the example is not in the store.
        """
        placed = self.index.get(example_id)
        if placed is None:
            raise DataError(
                f"store {self.root}: example {example_id} is not in it "
                f"({len(self.index)} examples). Dump the conversations that hold it."
            )
        return placed.keep_last(self.last_tokens)

    def _shard(self, name: str, shard: int) -> ShardRows:
        key = (name, shard)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        self._check(name, shard)
        self._cache[key] = found = self._open(name, shard)
        while len(self._cache) > 1 and (
            self.cached_bytes > self._cache_bytes or len(self._cache) > MAX_MAPPED
        ):
            self._cache.popitem(last=False)
        return found

    def _open(self, name: str, shard: int) -> ShardRows:
        size, array = self.plan["shard_rows"], self._arrays[name]
        if self.codec != "raw" and name.startswith("acts/"):
            values = np.asarray(array[shard * size : (shard + 1) * size])
            values.flags.writeable = False  # callers get views of what the next caller gets
            return ShardRows([values], nbytes=values.nbytes)
        return map_shard(
            self.root / shard_file(name, shard),
            rows=size,
            chunk_rows=self.plan["chunk_rows"],
            width=array.shape[1:],
            dtype=array.dtype,
        )

    def _check(self, name: str, shard: int) -> None:
        commit = self.commits.get(shard)
        if commit is None:
            raise StoreError(
                f"store {self.root}: shard {shard} is not committed yet "
                f"({len(self.commits)} of {self.plan['n_shards']} are). Finish the dump."
            )
        relative = shard_file(name, shard)
        if relative in self._checked:
            return
        for fault in find_damage(self.root, {relative: commit.files[relative]}).values():
            raise DamagedError(
                f"store {self.root}: {relative} (shard {shard}, record {COMMITS}/{shard:06d}.json) "
                f"is {fault} since it was committed.",
                self.root / relative,
            )
        self._checked.add(relative)


def _short(value: str | None) -> str:
    return "absent" if value is None else shortened(value, most=24)
