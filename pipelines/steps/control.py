"""The optional step `control`: the target is steered through the decoder, and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.errors import ConfigError
from core.files import sha256_file
from core.records.steering_control import SteeringControl, find_control
from evaluators.control.config import ControlSection
from evaluators.control.prompts import draw_prompts
from pipelines.artifacts.cache_key import plain_computed
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.steps.shared.step import (
    ExternalInputs,
    Step,
    StepCall,
    model_location,
    require_section,
)


def _section(experiment: Experiment) -> ControlSection:
    return require_section(experiment, "control", experiment.control)


def _controls(experiment: Experiment) -> list[SteeringControl]:
    """Read the controls.

    Raises:
        ConfigError: one is not there or is wrong, or two have one name.
    """
    found = [find_control(reference) for reference in _section(experiment).controls]
    names = [control.control for control in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"control.controls: got two controls named {twice[0]}, expected "
            "different names. Rename one."
        )
    return found


def _config(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the output; controls and prompts count by what they say."""
    section = _section(experiment)
    own: dict[str, Any] = plain_computed(section)
    if section.read_layer is None:  # as before there was a choice
        del own["read_layer"]
    prompts = draw_prompts(section)  # too few are told before any work
    if section.prompts is None:
        del own["prompts"]
    else:
        own["prompts"] = digest([prompts.train, prompts.validation, prompts.test])
    own["controls"] = [control.model_dump(mode="json") for control in _controls(experiment)]
    del own["crows_pairs"], own["judge"]  # a digest outside, and a step of its own
    return own


def _external(outside: ExternalInputs) -> dict[str, Any]:
    pairs = _section(outside.experiment).crows_pairs
    if pairs is None:
        return dict(outside.model_digests)
    path = Path(pairs).expanduser()
    if not path.is_file():
        raise ConfigError(f"control.crows_pairs: {path} is not a file.")
    return {**outside.model_digests, "crows_pairs": sha256_file(path)}


def _control(call: StepCall) -> StepResult:
    from evaluators.control.evaluation import evaluate_control

    found = evaluate_control(
        call.data("train"),
        call.outside.model,
        call.out,
        call.work,
        controls=_controls(call.experiment),
        config=_section(call.experiment),
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts=found.model_dump(mode="json"))


CONTROL = Step(
    name="control",
    version=12,
    entry="evaluators.control.evaluation",
    run=_control,
    config=_config,
    inputs={"train": "train"},
    external=_external,
    locations=model_location,
)
