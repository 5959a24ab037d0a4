"""Use of a finished store in place of a dump: one dumped elsewhere, imported, or pulled.

Its files are linked where the file system can, each checked against its digest, so the bytes are on
the disk once, and the store that they come from can be removed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np

from activation_store.layout.arrays import CANARY_FILE, PLAN_FILE, ROOT_FILE, array_of
from activation_store.layout.checksummed_json import checksummed_json
from activation_store.layout.commit_records import commit_path
from activation_store.layout.config import CaptureConfig
from activation_store.layout.file_digests import FileDigest
from activation_store.layout.root_record import finished_root, read_canary
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.target.load import model_shape
from activation_store.write.canary import CanaryResult
from activation_store.write.dump import DumpResult
from activation_store.write.prepared import PreparedDump, prepare_dump
from activation_store.write.reuse import link_verified
from core.errors import DamagedError, StoreError
from core.files import fsync_dir, storage_errors, write_files


def adopt_store(
    source: Path, out: Path, *, conversations: Path, config: CaptureConfig, model: ModelFiles
) -> DumpResult:
    """Take a finished store as the dump of these conversations.

    Args:
        source: the finished store.
        out: the new store's folder; what an earlier attempt left there is completed.
        conversations: folder with conversations.parquet; those that are not in the store are
            counted as dropped.
        config: the capture that is wanted; its layers must be in the store.
        model: the target that the store must be of.

    Raises:
        StoreError: there is no finished store, or it is damaged, of another target, lacks a layer,
            or has other tokens than a conversation, or none of them.
        StorageError: the disk is full.
    """
    try:
        return _adopt(source, out, conversations, config, model)
    except DamagedError as error:
        # nobody here can compute it again
        raise StoreError(
            f"{error} It is the store named in dump.store: fetch it again, run the "
            "experiment that dumped it, or leave dump.store out."
        ) from error


def _adopt(
    source: Path, out: Path, conversations: Path, config: CaptureConfig, model: ModelFiles
) -> DumpResult:
    finished_root(source)
    store = ActivationStore(source)
    store.check_target(model.digests())
    shape = model_shape(model)
    layers = tuple(shape.layer(k, "dump.layers") for k in config.layers)
    for layer in layers:
        store.only_layer(layer)
    prepared = prepare_dump(conversations, config, model)
    absent = _check_tokens(store, prepared)
    with storage_errors(out):
        written = _link_files(store, out)
    canary = read_canary(source)
    dropped = Counter(row.reason for row in prepared.dropped)
    if absent:
        dropped["not_in_store"] = absent
    return DumpResult(
        sequences=len(store.index),
        tokens=store.index.tokens,
        bytes=written,
        raw_bytes=sum(size for name, (size, _) in _known_files(store).items() if array_of(name)),
        tokens_per_second=0.0,
        forward_tokens=0,
        shared_shards=len(store.commits),
        layers=store.layers,
        d_model=store.d_model,
        store_dtype=store.plan["dtype"],
        compute_dtype=store.plan["compute_dtype"],
        shards=len(store.commits),
        canary=CanaryResult(**{own.name: canary[own.name] for own in fields(CanaryResult)}),
        dropped=dict(sorted(dropped.items())),
    )


def _check_tokens(store: ActivationStore, prepared: PreparedDump) -> int:
    """Compare tokens; return how many conversations are not in the store.

    Raises:
        StoreError: an example has other tokens in the store, or withholds others from the decoder,
            or no conversation is in it.
    """
    absent = 0
    for example, tokens in prepared.tokens.items():
        if example not in store:
            absent += 1
            continue
        there = store.tokens(example)
        # an import that does not know its tokens has zeros
        if there.any() and not np.array_equal(there, tokens.ids):
            raise StoreError(
                f"store {store.root}: example {example} has {len(there)} tokens there and others "
                f"than its conversation's {len(tokens.ids)} (another template or its settings?). "
                "Use the conversations that it was dumped from, or dump again."
            )
        if len(there) != len(tokens.ids):
            raise StoreError(
                f"store {store.root}: example {example} has {len(there)} vectors, and its "
                f"conversation {len(tokens.ids)} tokens. Use the conversations that they are of."
            )
        if (withheld := store.index[example].withheld) != tokens.withheld:
            raise StoreError(
                f"store {store.root}: of example {example}, {withheld} tokens are withheld from a "
                f"masked decoder, and of its conversation {tokens.withheld}, the control's own. "
                "Import the vectors again with these numbers in the column `withheld`."
            )
    if absent == len(prepared.tokens):
        raise StoreError(
            f"store {store.root}: none of the {absent} conversations is in it. "
            "Use the conversations that it was dumped from."
        )
    return absent


def _link_files(store: ActivationStore, out: Path) -> int:
    """Link or copy every file of `store` into `out`; return their bytes.

    Raises:
        DamagedError: a file is not as it was committed.
    """
    known = _known_files(store)
    for name, digest in known.items():
        if not link_verified(store.root / name, out / name, digest):
            raise DamagedError(
                f"store {store.root}: {name} is not as it was committed.", store.root / name
            )
    copies = {name: (store.root / name).read_bytes() for name in (PLAN_FILE, ROOT_FILE)}
    for shard, commit in store.commits.items():  # root.json has those whose records are lost
        copies[commit_path(Path(), shard).as_posix()] = checksummed_json(commit.to_json())
    write_files({out / name: content for name, content in copies.items()})
    copies[CANARY_FILE] = (store.root / CANARY_FILE).read_bytes()  # last: it says it is finished
    write_files({out / CANARY_FILE: copies[CANARY_FILE]})
    fsync_dir(out)
    return sum(digest.size for digest in known.values()) + sum(map(len, copies.values()))


def _known_files(store: ActivationStore) -> dict[str, FileDigest]:
    """Return the files of the plan and of all shards, by path below the store."""
    known: dict[str, FileDigest] = dict(store.plan["files"])
    for commit in store.commits.values():
        known |= commit.files
    return known
