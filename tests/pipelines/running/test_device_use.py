"""How steps use the GPUs of a machine, in words."""

from __future__ import annotations

from typing import Any

import pytest

from core.runtime import Runtime
from pipelines.running.device_use import describe_devices, find_devices


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {},
            "8 GPUs: complete, dump and evaluate on each, with a model of its own; train on as "
            "many as divide train.rows_per_batch; all else on one",
        ),
        (
            {"workers": 4, "processes": 8},
            "8 GPUs: complete and dump in 4 processes with a model each; train on 8 "
            "(runtime.processes); all else on one",
        ),
        (
            {"spread": True, "tensor_parallel": 8, "processes": 8, "sharding": "full"},
            "8 GPUs: dump shares one model among 8; complete, evaluate, robustness, tasks and "
            "control spread it over all; train on 8 (runtime.processes), which share the weights",
        ),
    ],
)
def test_each_step_has_its_devices(settings: dict[str, Any], said: str) -> None:
    assert describe_devices(Runtime.model_validate(settings), "cuda", 8) == said


def test_a_device_that_is_named_has_every_step() -> None:
    assert describe_devices(Runtime(), "cuda:1", 8) == "every step on cuda:1"
    assert find_devices(Runtime(device="cpu", workers=2)) == (
        "every step on cpu; 2 workers have a model each"
    )
