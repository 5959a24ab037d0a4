"""Training that is killed at every step in turn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import chain
import pytest

from decoder.config import LoraSettings
from trainers.config import LOG_FILE, TrainConfig
from trainers.training import train

CONFIG = TrainConfig(
    lora=LoraSettings(rank=4, alpha=8, dropout=0.1),
    views=("control",),
    rows_per_batch=3,
    accumulation=2,
    epochs=4,
    evaluations=4,
    learning_rate=1e-2,
    seed=1,
)
"""16 rows: 12 steps, dropout, accumulation, short last batches, 4 checkpoints."""
STEPS = 12


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.prove
def test_a_killed_training(proved: dict[str, Any], tmp_path: Path) -> None:
    """Trainings killed at any step resume to the loss curve and weights of an undisturbed run"""
    made = chain.make(tmp_path / "chain")
    tools: dict[str, Any] = {"config": CONFIG, "runtime": chain.RUNTIME}
    train(*made.places(tmp_path / "whole"), **tools)
    whole = outputs(tmp_path / "whole")
    same = 0
    for step in range(1, STEPS + 1):
        folder = tmp_path / "killed"
        chain.killed(train, step, *made.places(folder), **tools)
        train(*made.places(folder), **tools)
        same += outputs(folder) == whole
        shutil.rmtree(folder)
    curve = [json.loads(line) for line in whole[LOG_FILE].decode().splitlines()]
    proved |= {
        "steps of a run": STEPS,
        "kills, one at each step": STEPS,
        "bit-equal adapters and loss curves": same,
        "losses in a curve": sum("loss" in line for line in curve),
    }
    assert same == STEPS
