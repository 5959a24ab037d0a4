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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.arrays import (
    COMMITS,
    INDEX_FILE,
    PLAN_FILE,
    TOKEN_ARRAYS,
    array_file,
    array_of,
    layer_array,
    open_arrays,
    to_float32,
)
from activation_store.layout.file_digests import FileDigest, find_damage
from activation_store.layout.index import SequenceIndex, SequenceSpan
from activation_store.layout.plan_files import read_plan
from activation_store.layout.root_record import read_committed
from activation_store.read.shard_rows import ShardRows, map_chunk, map_shard
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
        # token ids and segments grow with the store, and are checked when they are first read
        files: dict[str, FileDigest] = self.plan["files"]
        small = {name: known for name, known in files.items() if array_of(name) is None}
        for name, fault in find_damage(root, small).items():
            raise DamagedError(f"store {root}: {name} is {fault}.", root / name)
        self.index = SequenceIndex.read(root / INDEX_FILE)
        self.layers: tuple[int, ...] = tuple(self.plan["layers"])
        self.d_model: int = self.plan["d_model"]
        self.codec: str = self.plan["codec"]
        self.commits = read_committed(root, self.plan["digest"])
        self.complete = len(self.commits) == self.plan["n_shards"]
        self._arrays = open_arrays(root, self.layers)
        file_rows = {layer_array(layer): self.plan["shard_rows"] for layer in self.layers}
        self._file_rows = file_rows | dict.fromkeys(TOKEN_ARRAYS, self.plan["token_rows"])
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
            _, row, n = self.index.rows_of(example_id)
        except KeyError:
            self.place(example_id)  # names it
            raise
        number, start = divmod(row, self._file_rows[name])
        found = self._cache.get((name, number))
        if found is None or found.nbytes:  # a mapped file costs nothing to keep, and needs no lock
            with self._lock:
                found = self._file(name, number)
        return found.read(start, start + n)

    def tokens(self, example_id: str) -> np.ndarray[Any, Any]:
        """Read the token ids [T] int32 of one example, whether its shard is committed or not.

        Raises:
            DataError: the example is not in the store.
            DamagedError: the bytes are not those that were written with the plan.
        """
        return self.rows("tokens", example_id)

    def segments(self, example_id: str) -> np.ndarray[Any, Any]:
        """Read the segment codes [T] uint8 of one example (activation_store/tokens/tokens.py).

        Raises: as `tokens`.
        """
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

    def _file(self, name: str, number: int) -> ShardRows:
        """Return the rows of one file of the array `name`."""
        key = (name, number)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        self._check(name, number)
        self._cache[key] = found = self._open(name, number)
        while len(self._cache) > 1 and (
            self.cached_bytes > self._cache_bytes or len(self._cache) > MAX_MAPPED
        ):
            self._cache.popitem(last=False)
        return found

    def _open(self, name: str, number: int) -> ShardRows:
        size, array = self._file_rows[name], self._arrays[name]
        path = self.root / array_file(name, number)
        if name in TOKEN_ARRAYS:
            return map_chunk(path, rows=size, dtype=array.dtype)
        if self.codec != "raw" and name.startswith("acts/"):
            values = np.asarray(array[number * size : (number + 1) * size])
            values.flags.writeable = False  # callers get views of what the next caller gets
            return ShardRows([values], nbytes=values.nbytes)
        return map_shard(
            path,
            rows=size,
            chunk_rows=self.plan["chunk_rows"],
            width=array.shape[1:],
            dtype=array.dtype,
        )

    def _check(self, name: str, number: int) -> None:
        relative = array_file(name, number)
        if relative in self._checked:
            return
        known, record = self._record_of(name, number)
        for fault in find_damage(self.root, {relative: known[relative]}).values():
            raise DamagedError(
                f"store {self.root}: {relative} ({record}) is {fault} since it was written.",
                self.root / relative,
            )
        self._checked.add(relative)

    def _record_of(self, name: str, number: int) -> tuple[Mapping[str, FileDigest], str]:
        """Return the digests among which a file's is, and the words for where they stand."""
        if name in TOKEN_ARRAYS:
            return self.plan["files"], PLAN_FILE
        commit = self.commits.get(number)
        if commit is None:
            raise StoreError(
                f"store {self.root}: shard {number} is not committed yet "
                f"({len(self.commits)} of {self.plan['n_shards']} are). Finish the dump."
            )
        return commit.files, f"shard {number}, record {COMMITS}/{number:06d}.json"


def _short(value: str | None) -> str:
    return "absent" if value is None else shortened(value, most=24)
