"""Smoke runs: the user's own experiment at about eight rows, through every step."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from generators.making.config import limit_controls
from pipelines.experiment.config import Experiment

C = TypeVar("C", bound=BaseModel)

ROWS = 8
"""Most rows of each view."""
CONTROLS = 12
"""Most controls that an LLM writes: of each of three kinds one for every split, and one more."""


def smoke(experiment: Experiment) -> Experiment:
    """Return `experiment` as NAME-smoke, with everything that costs time made small."""
    changes: dict[str, Any] = {"experiment": f"{experiment.experiment}-smoke"}
    if experiment.data is not None:
        changes["data"] = _with(experiment.data, limit=_least(experiment.data.limit, ROWS))
    if experiment.generate is not None and experiment.data is None:
        few = limit_controls(experiment.generate.conversations, CONTROLS)
        changes["generate"] = _with(experiment.generate, conversations=few)
    if experiment.quality is not None:
        sample = _least(experiment.quality.sample, ROWS)
        changes["quality"] = _with(experiment.quality, sample=sample)
    train = experiment.train
    changes["train"] = _with(
        train,
        max_steps=_least(train.max_steps, 2),
        evaluations=1,
        rows_per_batch=_least(train.rows_per_batch, 2),
        validation_rows=_least(train.validation_rows, 2),
    )
    if experiment.complete is not None:
        tokens = min(experiment.complete.max_tokens, 16)
        changes["complete"] = _with(experiment.complete, max_tokens=tokens)
    if experiment.robustness is not None:
        robustness = experiment.robustness
        changes["robustness"] = _with(
            robustness,
            max_controls=_least(robustness.max_controls, 4),
            min_controls=2,
            shift_steps=min(robustness.shift_steps, 2),
            bootstrap=min(robustness.bootstrap, 200),
        )
    if experiment.tasks is not None:
        prompts = experiment.tasks.prompts
        changes["tasks"] = _with(
            experiment.tasks,
            prompts=None if prompts is None else _with(prompts, max_controls=4, answer_tokens=8),
            max_subjects=min(experiment.tasks.max_subjects, 8),
            min_subjects=2,
            validation_subjects=min(experiment.tasks.validation_subjects, 2),
            layers=experiment.tasks.layers or (0,),
            bootstrap=min(experiment.tasks.bootstrap, 200),
            judge=None
            if experiment.tasks.judge is None
            else _with(experiment.tasks.judge, answers=2),
        )
    if experiment.control is not None:
        control = experiment.control
        changes["control"] = _with(
            control,
            strengths=control.strengths[:1],
            train_prompts=4,
            validation_prompts=2,
            test_prompts=2,
            max_tokens=min(control.max_tokens, 8),
            weights=_with(control.weights, steps=min(control.weights.steps, 2)),
            crows_rows=10 if control.crows_pairs is not None else None,
            bootstrap=min(control.bootstrap, 200),
        )
    evaluate = experiment.evaluate
    judge = evaluate.judge
    changes["evaluate"] = _with(
        evaluate,
        judge=None if judge is None else _with(judge, answers=_least(judge.answers, 2)),
        max_controls=_least(evaluate.max_controls, 4),
        min_controls=2,
        answers=_least(evaluate.answers, 1),
        max_answer_tokens=_least(evaluate.max_answer_tokens, 8),
        bootstrap=_least(evaluate.bootstrap, 200),
    )
    return _with(experiment, **changes)


def _with(config: C, **changes: Any) -> C:
    return type(config).model_validate({**dict(config), **changes})


def _least(value: int | None, limit: int) -> int:
    return limit if value is None else min(value, limit)
