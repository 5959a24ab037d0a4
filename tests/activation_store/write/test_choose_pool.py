"""A dump runs on every GPU of the machine, unless the runtime says otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from activation_store.write.shard_tasks import choose_pool
from core.processes.task_pool import InProcess, LocalPool
from core.runtime import Runtime


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
