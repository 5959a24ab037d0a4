"""The optional step `tasks`: LIT and rival methods on tasks with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from evaluators.config import Baseline
from evaluators.tasks.config import TasksConfig
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

TASKS = "tasks"
_TRAINED = "train_"
"""What the step of a baseline has before the baseline's name."""
_ROWS = "conversations"
_READ: tuple[Baseline, ...] = ("prior", "visible_text")
"""Baselines that are methods here; `text` reads a control, and there is none."""


def tasks_step(baseline_steps: Sequence[str], conversations: str | None = None) -> Step:
    """Return the step, which takes the decoder and those of its baselines that are methods.

    Args:
        baseline_steps: names of the steps that train baselines.
        conversations: name of the step that makes the decoder's own rows; None where they are not
            at hand.
    """
    rows = {} if conversations is None else {_ROWS: conversations}
    kept = [name for name in baseline_steps if name.removeprefix(_TRAINED) in _READ]
    return Step(
        name=TASKS,
        version=9,
        entry="evaluators.tasks.tasks",
        run=_tasks,
        config=_config,
        inputs={**rows, **{name: name for name in ("train", *kept)}},
        external=_external,
        locations=_locations,
    )


def _section(experiment: Experiment) -> TasksConfig:
    return require_section(experiment, "tasks", experiment.tasks)


def _config(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the output; files of relations count by their digests."""
    own = plain_computed(_section(experiment))
    del own["relations"], own["judge"]  # a judge is a step of its own
    if own["shift"] is not None:
        own["shift"] = {"layer": own["shift"]["layer"]}  # the model counts by its digests
    return own


def _external(outside: ExternalInputs) -> dict[str, Any]:
    own: dict[str, Any] = {**outside.model_digests, "relations": outside.relation_digests}
    other = outside.shift_model
    return own if other is None else {**own, "shift": other.digests()}


def _locations(experiment: Experiment) -> dict[str, Any]:
    section = _section(experiment)
    shift = section.shift
    return {
        **model_location(experiment),
        "relations": list(section.relations),
        "shift": None if shift is None else {"model": shift.model, "adapter": shift.adapter},
    }


def _tasks(call: StepCall) -> StepResult:
    from evaluators.tasks.tasks import TaskInputs, run_tasks

    trained: dict[str, Baseline] = {f"{_TRAINED}{name}": name for name in get_args(Baseline)}
    found = run_tasks(
        TaskInputs(
            model=call.outside.model,
            decoder=call.data("train"),
            baselines={trained[role]: call.data(role) for role in call.inputs if role in trained},
            relations=call.outside.relation_files,
            other=call.outside.shift_model,
            conversations=call.data(_ROWS) if _ROWS in call.inputs else None,
        ),
        call.out,
        call.work,
        config=_section(call.experiment),
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts=found.to_json())
