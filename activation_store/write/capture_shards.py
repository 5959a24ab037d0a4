"""Writing shards: compute each with the target, and commit it while the next one is computed.

Forward passes continue from one shard to the next without a pause. On a CPU one commit runs at a
time, so a writer holds two shards, the one that it fills and the one that it commits (and the
latter's packed bytes, if the codec packs). On an accelerator several commits run, each in its own
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import nn

from activation_store.layout.arrays import layer_array
from activation_store.layout.commit_records import commit_path
from activation_store.layout.file_digests import FileDigest
from activation_store.layout.plan import Plan
from activation_store.target.capture import Capture
from activation_store.target.host_copy import HostCopier
from activation_store.tokens.token_table import TokenTable
from activation_store.write.reuse import ReusableStores
from activation_store.write.shard_builder import ShardBatch, ShardBuilder
from activation_store.write.shard_writer import IN_MEMORY, ShardWriter
from core.files import storage_errors


def capture_shards(
    plan: Plan,
    shards: Iterable[int],
    *,
    out: Path,
    tokens: TokenTable,
    net: nn.Module,
    reusable: ReusableStores | None = None,
    report_tokens: Callable[[int], object] = int,
) -> int:
    """Compute and commit shards of a store whose plan is written.

    Whoever calls it decides which shards are this writer's: a list, a queue, or a scheduler. A
    shard that is committed already is passed over; one that two writers write at a time ends as the
    same bytes.

    Args:
        plan: the plan.
        shards: numbers of shards; the next is asked for when the one before is computed.
        out: the store's folder.
        tokens: the sequences' tokens by example id.
        net: the target.
        reusable: stores from which rows are taken over; none where it is None.
        report_tokens: called with the tokens of each batch that is in place.

    Returns:
        Tokens that the target was run on.

    Raises:
        StoreError: an activation is not finite.
        ModelError: the device has no room for a single sequence.
        StorageError: the disk is full; committed shards stay.
    """
    capture = Capture(net, plan.layers)
    copier = HostCopier(plan.dtype)
    stores = reusable or ReusableStores((), plan)
    forward_tokens = 0
    # a CPU has its forward passes to run, and an accelerator is faster than one commit
    under_way = 1 if capture.device.type == "cpu" else IN_MEMORY
    with ShardWriter(out, plan, in_memory=under_way) as writer:
        pending: tuple[ShardBuilder, ShardBatch] | None = None

        def finish(builder: ShardBuilder, batch: ShardBatch) -> None:
            nonlocal forward_tokens
            builder.put(batch)
            forward_tokens += batch.forward_tokens
            report_tokens(batch.tokens)
            if builder.complete:
                writer.submit(builder.shard, builder.content, builder.reused_files)

        for builder in _builders(plan, shards, out, tokens, stores):
            for batch in builder.run_batches(capture, copier):
                # a batch is put in place when the next is launched, so that a GPU never waits
                if pending is not None:
                    finish(*pending)
                pending = builder, batch
        if pending is not None:
            finish(*pending)
    return forward_tokens


def _builders(
    plan: Plan, shards: Iterable[int], out: Path, tokens: TokenTable, reusable: ReusableStores
) -> Iterator[ShardBuilder]:
    """Begin each shard that is not committed yet, with the layers' files that another store has."""
    for shard in shards:
        if commit_path(out, shard).exists():
            continue
        files: dict[str, FileDigest] = {}
        if shard < len(plan.shared):
            with storage_errors(out):
                for layer in plan.layers:
                    files |= reusable.link_file(out, plan, shard, layer_array(layer))
        yield ShardBuilder(plan, shard, tokens=tokens, reusable=reusable, reused_files=files)
