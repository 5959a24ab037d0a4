"""The activation store at full counts: writers that are killed, files that are damaged."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
import tiny
import torch
from store_kills import kill_until_done, seconds_of_a_writer

from activation_store.exchange.importing import VectorImport, import_vectors
from activation_store.exchange.vector_sources import open_memmap
from activation_store.layout.root_record import root_digest
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.read.verify import verify

KILLS = 200
CORRUPTIONS = 1000
TOKENS = 10_000_000


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ModelFiles, Path]:
    """Conversations, a tiny model, and the float32 store of an undisturbed run."""
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        stores, "CAPTURE", stores.CAPTURE.model_copy(update={"store_dtype": "float32"})
    )
    torch.set_num_threads(1)
    model = resolve_model(str(tiny.save(tmp_path / "model")))
    rows = stores.table(tmp_path / "rows", stores.conversations())
    stores.fill(rows, tmp_path / "whole", model)
    return rows, model, tmp_path / "whole"


@pytest.mark.prove
def test_killed_writers(
    proved: dict[str, Any], chain: tuple[Path, ModelFiles, Path], tmp_path: Path
) -> None:
    """Stores whose writers were killed at random moments equal that of an undisturbed run"""
    rows, model, whole = chain
    draw = random.Random(0)
    kills, finished = 0, 0
    longest = seconds_of_a_writer(rows, tmp_path / "timed", model)
    while kills < KILLS:
        out = tmp_path / "killed"
        kills += kill_until_done(draw, rows, out, model, whole, longest)
        assert root_digest(out) == root_digest(whole)
        shutil.rmtree(out)
        finished += 1
        proved["SIGKILLs, one to four writers at a time"] = kills
        proved["stores resumed, all with the root digest of the undisturbed run"] = finished
    proved["shards of a store"] = ActivationStore(whole).plan["n_shards"]
    proved["seed"] = 0


@pytest.mark.prove
def test_corruptions(
    proved: dict[str, Any],
    chain: tuple[Path, ModelFiles, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random damage to a store is located by shard and layer, and repaired shard by shard"""
    rows, model, whole = chain
    draw = random.Random(0)
    counted = stores.CountedTokens(monkeypatch)
    found: Counter[str] = Counter()
    for _ in range(CORRUPTIONS):
        store = shutil.copytree(whole, tmp_path / "damaged")
        harm = stores.corrupt(store, draw)
        findings = verify(store).damaged
        assert harm.files <= {finding.file for finding in findings}, harm
        assert harm.shards == {f.shard for f in findings if f.array} - {None}, harm
        counted.tokens = 0
        stores.fill(rows, store, model)
        assert counted.tokens == stores.tokens_of(whole, harm.to_compute), harm
        assert stores.contents(store) == stores.contents(whole), harm
        shutil.rmtree(store)
        found[harm.kind] += 1
        proved["found and repaired, recomputing only the damaged shards"] = found.total()
        proved["by kind"] = str(dict(sorted(found.items())))
    proved["seed"] = 0


@pytest.mark.prove
def test_a_large_store_opens_fast(proved: dict[str, Any], tmp_path: Path) -> None:
    """A store of 10 million tokens opens in under a second and returns any example at once"""
    width, length = 16, 100
    values = np.lib.format.open_memmap(
        tmp_path / "v.npy", mode="w+", dtype=np.float16, shape=(TOKENS, width)
    )
    values[:] = np.arange(width)
    values.flush()
    n = TOKENS // length
    table = pa.table(
        {
            "example_id": [f"{i:016x}" for i in range(n)],
            "row_start": np.arange(n) * length,
            "n_tokens": np.full(n, length),
        }
    )
    pq.write_table(table, tmp_path / "i.parquet")
    source = open_memmap(tmp_path / "v.npy", tmp_path / "i.parquet")
    import_vectors(source, tmp_path / "store", config=VectorImport(layer=0), target={})
    opened, asked = [], []
    draw = random.Random(0)
    for _ in range(5):
        start = time.perf_counter()
        store = ActivationStore(tmp_path / "store")
        opened.append(time.perf_counter() - start)
        names = [f"{draw.randrange(n):016x}" for _ in range(200)]
        for name in names:
            store.bits(name, 0)  # its shard's one check is not counted
        for name in names:
            start = time.perf_counter()
            store.bits(name, 0)
            asked.append(time.perf_counter() - start)
    proved["tokens"] = store.plan["tokens"]
    proved["shards"] = store.plan["n_shards"]
    proved["opening, median of 5 (s)"] = round(float(np.median(opened)), 3)
    proved["one example by id, median of 1,000 (ms)"] = round(1000 * float(np.median(asked)), 4)
    proved["cores"] = os.cpu_count()
    assert np.median(opened) < 1
    assert np.median(asked) < 1e-3
