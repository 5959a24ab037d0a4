"""One tiny model, its conversations and a store of them, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import stores
import tiny
import torch

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """Return the tiny model on disk."""
    return resolve_model(str(tiny.save(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the conversations."""
    return stores.table(tmp_path_factory.mktemp("rows"), stores.conversations())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, rows: Path, model: ModelFiles) -> Path:
    """Return a complete store, for reading only."""
    out = tmp_path_factory.mktemp("whole")
    stores.fill(rows, out, model)
    assert ActivationStore(out).plan["n_shards"] >= 5
    return out


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """Return a complete store of the test's own."""
    return shutil.copytree(whole, tmp_path / "store")
