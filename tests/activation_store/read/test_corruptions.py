"""Random damage to any file of a store: always found, always mended, and no more than that."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import stores

from activation_store.model_files.files import ModelFiles
from activation_store.read.verify import verify


def test_random_corruptions_are_found_and_mended(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    counted = stores.CountedTokens(monkeypatch)
    for i in range(24):  # `make prove` does a thousand
        store = shutil.copytree(whole, tmp_path / "store")
        harmed = stores.corrupt(store, draw)
        findings = verify(store).damaged
        assert harmed.files <= {finding.file for finding in findings}, harmed
        assert harmed.shards == {f.shard for f in findings if f.array} - {None}, harmed
        if i % 6 == 0:
            counted.tokens = 0
            stores.fill(rows, store, model)
            assert counted.tokens == stores.tokens_of(whole, harmed.to_compute), harmed
            assert stores.contents(store) == stores.contents(whole), harmed
        shutil.rmtree(store)
