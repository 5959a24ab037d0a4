"""What is made of zarr."""

from __future__ import annotations

import time

from zarr.core import sync

from activation_store.layout.arrays import array_metadata, stop_zarr

SHAPE = {
    "rows": 256,
    "d_model": 4,
    "layers": (1,),
    "shard_rows": 256,
    "chunk_rows": 64,
    "token_rows": 256,
}


def test_zarrs_loop_has_ended_when_zarr_closes_it_however_busy_the_machine_is() -> None:
    array_metadata(dtype="float32", **SHAPE)  # type: ignore[arg-type]
    loop = sync.loop[0]
    assert loop is not None
    loop.call_soon_threadsafe(time.sleep, 0.5)
    stop_zarr()
    sync.cleanup_resources()  # an error, where the loop still runs
    assert loop.is_closed()
