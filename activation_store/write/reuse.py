"""What other stores hold already is taken over from them, and not computed again.

A store over more rows, fewer rows, or other layers than an earlier one of the same target shares
with it in two ways. A shard whose every sequence is wanted keeps its layout, and the files of its
layers are hard links to the other store's: the bytes are on the disk once, either store can be
removed, and neither is ever written in place. The rows of other shards are copied, one sequence at
a time. What no store holds is computed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from activation_store.layout.arrays import (
    CANARY_FIELDS,
    CANARY_FILE,
    INDEX_FILE,
    PLAN_FILE,
    layer_array,
    shard_file,
)
from activation_store.layout.file_marks import Mark, broken, file_mark, is_current
from activation_store.layout.index import Index
from activation_store.layout.plan import PLAN_FIELDS, Plan, Shared
from activation_store.layout.sealed_json import read_sealed
from activation_store.read.reader import ActivationStore
from activation_store.target.tokens import Tokens
from core.errors import DamagedError, StoreError
from core.files import fsync_dir, write_bytes

_LOG = logging.getLogger(__name__)
_SAME = ("target", "d_model", "dtype", "compute_dtype", "batch_tokens")
"""What decides the numbers of an activation, beside its tokens and its layer."""
_CACHE_MB = 64


class Others:
    """Finished stores whose activations are those that a plan would have computed.

    Args:
        folders: stores, the preferred ones first; those of anything else are passed over.
        plan: the plan.
    """

    def __init__(self, folders: Iterable[Path], plan: Plan) -> None:
        self._layers = frozenset(plan.layers)
        self._damaged: set[tuple[Path, str, int]] = set()
        self._stores = [store for folder in folders if (store := _opened(folder, plan))]

    def shards(self, plan: Plan, rows: Mapping[str, Tokens]) -> tuple[Shared, ...]:
        """The shards that can stand in a store laid out as `plan` as they are, each row once."""
        taken: set[str] = set()
        found = []
        # the store with most of the layers first, then the one with most sequences
        for store in sorted(self._stores, key=lambda s: (-self._common(s), -len(s.index))):
            if not _fits(store, plan):
                continue
            names = np.array(list(store.index))
            for shard in range(store.plan["n_shards"]):
                examples = tuple(names[store.index.shard == shard].tolist())
                if taken.isdisjoint(examples) and self._wanted(store, examples, rows):
                    found.append(Shared(store.plan["digest"], shard, examples))
                    taken.update(examples)
        return tuple(found)

    def link(self, root: Path, plan: Plan, shard: int, name: str) -> dict[str, Mark]:
        """Take over the file of array `name` of one of the plan's shared shards.

        Returns:
            The mark of the file by its path below `root`, durable; empty where no store has it.

        Raises:
            StorageError: the disk is full or read-only.
        """
        shared = plan.shared[shard]
        for store in self._stores:
            if store.plan["digest"] != shared.plan or not _fits(store, plan):
                continue
            there, here = shard_file(name, shared.shard), shard_file(name, shard)
            mark = store.commits[shared.shard].files.get(there)
            if mark is not None and _taken(store.root / there, root / here, mark):
                return {here: mark if is_current(mark) else file_mark(root / here)}
        return {}

    def bits(self, example: str, layer: int, tokens: Tokens) -> np.ndarray | None:
        """Activations [T, D] of an example as they are stored; None where no store has them."""
        for store in self._stores:
            if layer in store.layers and self._wanted(store, [example], {example: tokens}):
                bits = self._read(store, layer_array(layer), example)
                if bits is not None:
                    return bits
        return None

    def _common(self, store: ActivationStore) -> int:
        return len(self._layers.intersection(store.layers))

    def _wanted(
        self, store: ActivationStore, examples: Sequence[str], rows: Mapping[str, Tokens]
    ) -> bool:
        """Whether all are among `rows` with the tokens that they have in `store`."""
        return all(
            example in rows
            and example in store.index
            and (tokens := self._read(store, "tokens", example)) is not None
            and np.array_equal(tokens, rows[example].ids)
            for example in examples
        )

    def _read(self, store: ActivationStore, name: str, example: str) -> np.ndarray | None:
        """Rows of an example; None where their shard is damaged, which is told once."""
        place = (store.root, name, store.place(example).shard)
        if place in self._damaged:
            return None
        try:
            return store.rows(name, example)
        except DamagedError as error:
            _LOG.warning("%s It is not taken over.", error)
            self._damaged.add(place)
            return None


def begun(root: Path) -> tuple[str, tuple[Shared, ...]] | None:
    """Digest and shared shards of the plan that a store was begun with.

    None where there is none, or it cannot be read any more; then the store is planned anew.
    """
    try:
        plan = read_sealed(root / PLAN_FILE, PLAN_FIELDS)
    except DamagedError:
        return None
    shared = plan.get("shared", [])
    if not shared:
        return plan["digest"], ()
    if broken(root, {INDEX_FILE: plan["files"][INDEX_FILE]}):
        return None
    index = Index(root / INDEX_FILE)
    names = np.array(list(index))
    return plan["digest"], tuple(
        Shared(there, number, tuple(names[index.shard == shard].tolist()))
        for shard, (there, number) in enumerate(shared)
    )


def _opened(folder: Path, plan: Plan) -> ActivationStore | None:
    """The store at `folder`, where it is finished and holds what `plan` would have computed."""
    try:
        store = ActivationStore(folder, cache_mb=_CACHE_MB)
        canary = read_sealed(folder / CANARY_FILE, CANARY_FIELDS)
    except StoreError:
        return None  # no store, or one of a newer layout
    except DamagedError as error:
        _LOG.warning("%s Nothing is taken over from it.", error)
        return None
    same = all(store.plan.get(name) == getattr(plan, name) for name in _SAME)
    if not same or "imported" in canary or not store.complete:
        return None
    return store if set(store.layers) & set(plan.layers) else None


def _fits(store: ActivationStore, plan: Plan) -> bool:
    """Whether a shard file of `store` is one of `plan` under another number."""
    own = (store.codec, store.plan["shard_rows"], store.plan["chunk_rows"])
    return own == (plan.codec, plan.shard_rows, plan.chunk_rows)


def _taken(there: Path, here: Path, mark: Mark) -> bool:
    """Whether the file `there`, if it is as it was committed, now also stands at `here`."""
    if broken(there.parent, {there.name: mark}):
        _LOG.warning("%s is not as it was committed, and is computed again.", there)
        return False
    here.parent.mkdir(parents=True, exist_ok=True)
    aside = here.with_name(f".{here.name}.{os.getpid()}.{threading.get_ident()}.link")
    try:
        os.link(there, aside)
    except FileNotFoundError:
        return False  # gone in this moment
    except OSError:  # a file system without links, or with no more of them for this file
        write_bytes(here, there.read_bytes())
    else:
        os.replace(aside, here)
        aside.unlink(missing_ok=True)  # two names of one file: then a rename does nothing
    for folder in (here.parent, here.parent.parent):
        fsync_dir(folder)
    return True
