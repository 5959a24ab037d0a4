"""What a training config refuses, and how many steps it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from core.errors import ConfigError
from core.runtime import Runtime
from trainers.config import TrainConfig
from trainers.distributed.processes import DistributedContext
from trainers.loop.trainer import count_optimiser_steps, make_training_arguments


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "accumulation", "steps"),
    [(16, 1, 8, 1, 2), (17, 1, 8, 1, 3), (17, 2, 8, 2, 4), (16, 0.5, 8, 1, 1), (3, 0.1, 8, 1, 1)],
)
def test_steps_follow_from_epochs(
    rows: int, epochs: float, batch: int, accumulation: int, steps: int
) -> None:
    config = TrainConfig(epochs=epochs, rows_per_batch=batch, accumulation=accumulation)
    assert count_optimiser_steps(config, rows) == steps


def test_max_steps_stands_above_epochs() -> None:
    assert count_optimiser_steps(TrainConfig(epochs=9, max_steps=5), 100) == 5


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(mixture={"control": weight})


@pytest.mark.parametrize("name", ["system", "personas", "imported"])
def test_a_mixture_of_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"mixture names {name}, which is none of the views"):
        TrainConfig(views=("control",), mixture={name: 1.0})


def alone(device: torch.device) -> DistributedContext:
    return DistributedContext(world_size=1, rank=0, device=device)


def test_a_batch_is_shared_in_equal_parts() -> None:
    distributed = DistributedContext(world_size=4, rank=1, device=torch.device("cpu"))
    assert distributed.rows_per_process(8) == 2
    with pytest.raises(ConfigError, match="6 rows cannot be shared by 4 processes"):
        distributed.rows_per_process(6)


def test_a_sharded_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="got use_fsdp"):
        DistributedContext.from_environment(Runtime(device="cpu"))


def test_a_second_gpu_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=1"):
        make_training_arguments(
            TrainConfig(),
            tmp_path,
            steps=1,
            distributed=alone(torch.device("cuda:1")),
            report_to=(),
        )


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, "standardise"),
        ({"views": ["control", "system"]}, "standardise"),
        ({"views": ["control"]}, "none"),
        ({"decoder": {"masking": False}}, "none"),
        ({"decoder": {"normalisation": "none"}}, "none"),
        ({"views": ["control"], "decoder": {"normalisation": "centre"}}, "centre"),
    ],
)
def test_masked_views_are_standardised_unless_said_otherwise(
    fields: dict[str, Any], chosen: str
) -> None:
    config = TrainConfig.model_validate(fields)
    assert config.decoder.normalisation == chosen
    assert TrainConfig.model_validate(config.model_dump()) == config
