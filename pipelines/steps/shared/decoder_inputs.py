"""The inputs that training, evaluation and robustness share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activation_store.layout.config import CaptureConfig
from pipelines.artifacts.cache_key import plain
from pipelines.steps.shared.step import StepCall

if TYPE_CHECKING:
    from decoder.sources.step_inputs import StepInputs


def step_inputs(call: StepCall) -> StepInputs:
    """Collect tables, target and store; no store where activations are computed on the fly."""
    from decoder.sources.step_inputs import StepInputs  # loads torch

    dump = call.experiment.dump
    return StepInputs(
        conversations=call.data("conversations"),
        questions=call.data("questions"),
        store=call.data("dump") if "dump" in call.inputs else None,
        model=call.outside.model,
        capture=CaptureConfig.model_validate(plain(dump, CaptureConfig)),
    )
