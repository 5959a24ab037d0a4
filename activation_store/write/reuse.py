"""Reuse of rows that other stores hold, in place of computing them again.

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
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.layout.arrays import INDEX_FILE, array_file, layer_array
from activation_store.layout.file_digests import FileDigest, find_damage
from activation_store.layout.index import SequenceIndex
from activation_store.layout.plan import Plan, SharedShard
from activation_store.layout.plan_files import read_plan
from activation_store.layout.root_record import read_canary
from activation_store.read.reader import ActivationStore
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from core.errors import DamagedError, StoreError
from core.files import fsync_dir, write_bytes

_LOG = logging.getLogger(__name__)
_SAME = ("target", "d_model", "dtype", "compute_dtype")
"""What decides the numbers of an activation, beside its tokens and its layer."""
_CACHE_MB = 64


class ReusableStores:
    """Finished stores whose activations are those that a plan would have computed.

    Args:
        folders: stores, the preferred ones first; stores of anything else are passed over.
        plan: the plan.
    """

    def __init__(self, folders: Iterable[Path], plan: Plan) -> None:
        self._damaged: set[tuple[Path, str, int]] = set()
        self._stores = [store for folder in folders if (store := _open_reusable(folder, plan))]

    def find_shards(self, plan: Plan, rows: TokenTable) -> tuple[SharedShard, ...]:
        """Find the shards that can stand in a store laid out as `plan` as they are, each row once.

        Args:
            plan: the layout, its `shared` shards left out of account.
            rows: the tokens of the sequences that are wanted.
        """
        taken: set[str] = set()
        found = []
        # the store with most of the layers first, then the one with most sequences
        wanted = set(plan.layers)
        for store in sorted(
            self._stores, key=lambda s: (-len(wanted.intersection(s.layers)), -len(s.index))
        ):
            if not _has_layout(store, plan):
                continue
            for shard in range(store.plan["n_shards"]):
                examples = store.index.examples_in(shard)
                if taken.isdisjoint(examples) and all(
                    example in rows and self._has_tokens(store, example, rows[example])
                    for example in examples
                ):
                    numbers = np.array([rows.number(example) for example in examples], np.int64)
                    found.append(SharedShard(store.plan["digest"], shard, numbers))
                    taken.update(examples)
        return tuple(found)

    def link_file(self, root: Path, plan: Plan, shard: int, name: str) -> dict[str, FileDigest]:
        """Link the file of array `name` of one of the plan's shared shards into the store `root`.

        Returns:
            The digest of the file by its path below `root`, durable; empty where no store has it.

        Raises:
            StorageError: the disk is full or read-only.
        """
        origin, there_shard = plan.shared[shard]
        for store in self._stores:
            if store.plan["digest"] != origin or not _has_layout(store, plan):
                continue
            there, here = array_file(name, there_shard), array_file(name, shard)
            known = store.commits[there_shard].files.get(there)
            if known is None:
                continue
            if link_verified(store.root / there, root / here, known):
                return {here: known}
            _LOG.warning(
                "%s is not as it was committed, and is computed again.", store.root / there
            )
        return {}

    def read_bits(self, example: str, layer: int, tokens: Tokens) -> np.ndarray[Any, Any] | None:
        """Read activations [T, D] of an example as they are stored; None where no store has them.

        Args:
            example: id of the example.
            layer: block whose output is read.
            tokens: its tokens, which must be those in the store.
        """
        for store in self._stores:
            if layer in store.layers and self._has_tokens(store, example, tokens):
                bits = self._read(store, layer_array(layer), example)
                if bits is not None:
                    return bits
        return None

    def _has_tokens(self, store: ActivationStore, example: str, tokens: Tokens) -> bool:
        """Return whether an example is in `store` with these tokens."""
        if example not in store.index:
            return False
        there = self._read(store, "tokens", example)
        return there is not None and np.array_equal(there, tokens.ids)

    def _read(self, store: ActivationStore, name: str, example: str) -> np.ndarray[Any, Any] | None:
        """Read an example's activations from another store; None where their shard is damaged."""
        place = (store.root, name, store.place(example).shard)
        if place in self._damaged:
            return None
        try:
            return store.rows(name, example)
        except DamagedError as error:
            _LOG.warning("%s It is not reused.", error)
            self._damaged.add(place)
            return None


def read_started_plan(root: Path, rows: TokenTable) -> tuple[str, tuple[SharedShard, ...]] | None:
    """Read the digest and the shared shards of the plan with which a store was started.

    Args:
        root: the store's folder.
        rows: the tokens of the sequences that are wanted.

    Returns:
        None where there is no plan, it cannot be read, or it has other sequences; then the store
        is planned anew.
    """
    try:
        plan = read_plan(root)
    except (DamagedError, StoreError):
        return None
    if not plan["shared"]:
        return plan["digest"], ()
    if find_damage(root, {INDEX_FILE: plan["files"][INDEX_FILE]}):
        return None
    index = SequenceIndex.read(root / INDEX_FILE)
    if not all(example in rows for example in index):
        return None
    return plan["digest"], tuple(
        SharedShard(
            origin,
            number,
            np.array([rows.number(e) for e in index.examples_in(shard)], np.int64),
        )
        for shard, (origin, number) in enumerate(plan["shared"])
    )


def _open_reusable(folder: Path, plan: Plan) -> ActivationStore | None:
    """Open the store at `folder` if it is finished and holds what `plan` would have computed."""
    try:
        store = ActivationStore(folder, cache_mb=_CACHE_MB)
        canary = read_canary(folder)
    except StoreError:
        return None  # no store, or one of another layout
    except DamagedError as error:
        _LOG.warning("%s Nothing of it is reused.", error)
        return None
    same = all(store.plan.get(name) == getattr(plan, name) for name in _SAME)
    if not same or "imported" in canary or not store.complete:
        return None
    return store if set(store.layers) & set(plan.layers) else None


def _has_layout(store: ActivationStore, plan: Plan) -> bool:
    """Return whether a shard file of `store` is one of `plan` under another number."""
    own = (store.codec, store.plan["shard_rows"], store.plan["chunk_rows"])
    return own == (plan.codec, plan.shard_rows, plan.chunk_rows)


def link_verified(there: Path, here: Path, known: FileDigest) -> bool:
    """Link or copy the file `there` to `here` if it is as it was committed; return whether."""
    if find_damage(there.parent, {there.name: known}):
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
    fsync_dir(here.parent)
    return True
