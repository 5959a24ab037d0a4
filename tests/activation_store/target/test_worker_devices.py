"""Pieces of a step run on every GPU of the machine, unless the runtime says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
import torch

from activation_store.model_files.files import resolve_model
from activation_store.target.load import load_tokenizer
from activation_store.target.worker_devices import (
    choose_pool,
    find_model,
    plain_model,
    training_processes,
)
from core.errors import ModelError
from core.processes.task_pool import InProcess, LocalPool
from core.runtime import Runtime


def test_a_worker_refuses_a_target_that_was_swapped_since_the_key_was_made(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    plain = plain_model(resolve_model(str(folder)))
    load_tokenizer(find_model(plain))
    stores.flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match="its weights changed on disk while it was in use"):
        load_tokenizer(find_model(plain))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("gpus")
def test_a_process_for_each_gpu_by_default() -> None:
    assert choose_pool(Runtime(), None) == LocalPool(4)
    assert choose_pool(Runtime(), InProcess()) == LocalPool(4)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 1},
        {"device": "cuda:1"},
        {"device": "cpu"},
        {"spread": True},
        {"tensor_parallel": 2},
    ],
)
def test_one_process_where_the_runtime_names_its_place(settings: dict[str, Any]) -> None:
    assert choose_pool(Runtime.model_validate(settings), None).workers == 1


def test_one_process_without_a_gpu() -> None:
    assert choose_pool(Runtime(device="cpu"), None).workers == 1


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("settings", "rows", "processes"),
    [
        ({}, 8, 4),
        ({}, 6, 3),
        ({}, 1, 1),
        ({"processes": 2}, 8, 2),
        ({"device": "cuda:0"}, 8, 1),
        ({"workers": 4}, 8, 1),  # each may be a point of a sweep
    ],
)
def test_gpus_that_share_a_batch_evenly_train_together(
    settings: dict[str, Any], rows: int, processes: int
) -> None:
    assert training_processes(Runtime.model_validate(settings), rows) == processes
