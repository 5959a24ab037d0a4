"""The optional step `robustness`: the decoder on altered rows, and on a fine-tuned target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activation_store.layout.config import CaptureConfig
from evaluators.robustness.config import RobustnessConfig
from pipelines.artifacts.cache_key import deciding, plain, plain_computed
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import Step, StepCall, require_section

ROBUSTNESS = "robustness"


def robustness_step(evaluate: Step) -> Step:
    """Return the step, which reads what `evaluate` reads but for the trained baselines."""
    roles = ("conversations", "questions", "dump", "train")
    return Step(
        name=ROBUSTNESS,
        version=7,
        entry="evaluators.robustness.robustness",
        run=_robustness,
        config=_config,
        inputs={role: evaluate.inputs[role] for role in roles if role in evaluate.inputs},
        external=evaluate.external,
        locations=evaluate.locations,
    )


def _section(experiment: Experiment) -> RobustnessConfig:
    return require_section(experiment, "robustness", experiment.robustness)


def _config(experiment: Experiment) -> dict[str, Any]:
    own: Mapping[str, Any] = plain_computed(_section(experiment))
    if experiment.train.activations == "live":
        return {**own, "capture": deciding(plain(experiment.dump, CaptureConfig))}
    return dict(own)


def _robustness(call: StepCall) -> StepResult:
    from evaluators.robustness.robustness import robustness

    found = robustness(
        call.decoder_inputs(),
        call.data("train"),
        call.out,
        call.work,
        config=_section(call.experiment),
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts=found.to_json())
