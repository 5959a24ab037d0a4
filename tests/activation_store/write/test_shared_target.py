"""A target whose weights are shared between two processes (tensor parallelism on gloo)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import stores
from pydantic import ValidationError

from activation_store.layout.config import CaptureConfig
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.target.tensor_parallel import load_shared
from activation_store.write.dump import DumpResult, dump
from core.errors import ModelError
from core.runtime import Runtime

CONFIG = CaptureConfig.model_validate({**stores.CAPTURE.model_dump(), "store_dtype": "float32"})


def fill(rows: Path, out: Path, model: ModelFiles, processes: int) -> DumpResult:
    runtime = Runtime(device="cpu", threads=1, tensor_parallel=processes)
    return dump(rows, out, config=CONFIG, model=model, runtime=runtime)


@pytest.mark.prove  # two processes more that load torch
def test_two_processes_give_the_activations_of_one(
    tmp_path: Path, rows: Path, model: ModelFiles
) -> None:
    alone = fill(rows, tmp_path / "alone", model, 1)
    both = fill(rows, tmp_path / "both", model, 2)
    assert both.forward_tokens == alone.forward_tokens > 0
    assert 0 < both.canary.tokens == alone.canary.tokens
    one, two = (ActivationStore(tmp_path / name) for name in ("alone", "both"))
    for row in stores.conversations():
        for layer in map(int, CONFIG.layers):
            expected = one.read(row.example_id, layer)
            error = np.abs(two.read(row.example_id, layer) - expected).max()
            assert error < 1e-5 * np.abs(expected).max()


def test_an_adapter_is_refused_before_anything_is_loaded(tmp_path: Path, model: ModelFiles) -> None:
    adapted = dataclasses.replace(model, adapter=tmp_path)
    runtime = Runtime(device="cpu", tensor_parallel=2)
    with pytest.raises(ModelError, match="its adapter cannot be merged into weights that are"):
        load_shared(adapted, dtype="float32", runtime=runtime, first_blocks=2)


@pytest.mark.parametrize("way", ["spread", "tensor_parallel"])
def test_a_model_on_all_gpus_takes_no_workers(way: str) -> None:
    with pytest.raises(ValidationError, match=f"workers: got 2 together with {way}, expected 1"):
        Runtime.model_validate({"workers": 2, way: 2 if way == "tensor_parallel" else True})
