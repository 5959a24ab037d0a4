"""Smoke runs: the user's own experiment at about eight rows, through every step."""

from __future__ import annotations

from typing import Any

from activation_store.layout.config import Layer
from evaluators.tasks.config import TasksConfig
from generators.kinds.relation_files import find_relation_files
from generators.making.config import limit_controls
from pipelines.experiment.config import Experiment

ROWS = 8
"""Most rows of each view."""
CONTROLS = 12
"""Most controls that an LLM writes: of each of three kinds one for every split, and one more."""
TESTED = 4
"""Most subjects of a task: as many as share a choice."""
RELATIONS = 2
"""Most relations that are tasks: two have a mean."""


def smoke(experiment: Experiment) -> Experiment:
    """Return `experiment` as NAME-smoke, with everything that costs time made small."""
    changes: dict[str, Any] = {"experiment": f"{experiment.experiment}-smoke"}
    if experiment.data is not None:
        changes["data"] = experiment.data.with_changes(limit=_least(experiment.data.limit, ROWS))
    if experiment.generate is not None and experiment.data is None:
        few = limit_controls(experiment.generate.conversations, CONTROLS)
        changes["generate"] = experiment.generate.with_changes(conversations=few)
    if experiment.quality is not None:
        sample = _least(experiment.quality.sample, ROWS)
        changes["quality"] = experiment.quality.with_changes(sample=sample)
    train = experiment.train
    changes["train"] = train.with_changes(
        max_steps=_least(train.max_steps, 2),
        evaluations=1,
        rows_per_batch=_least(train.rows_per_batch, 2),
        validation_rows=_least(train.validation_rows, 2),
    )
    if experiment.complete is not None:
        tokens = min(experiment.complete.max_tokens, 16)
        changes["complete"] = experiment.complete.with_changes(max_tokens=tokens)
    if experiment.robustness is not None:
        robustness = experiment.robustness
        changes["robustness"] = robustness.with_changes(
            max_controls=_least(robustness.max_controls, 4),
            min_controls=2,
            shift_steps=min(robustness.shift_steps, 2),
            bootstrap=min(robustness.bootstrap, 200),
        )
    if experiment.tasks is not None:
        decoder = train.decoder
        read = decoder.read_layer
        first = (decoder.read_layers or experiment.dump.layers)[0] if read is None else read
        changes["tasks"] = _few_tasks(experiment.tasks, first)
    if experiment.control is not None:
        control = experiment.control
        changes["control"] = control.with_changes(
            strengths=control.strengths[:1],
            train_prompts=4,
            validation_prompts=2,
            test_prompts=2,
            max_tokens=min(control.max_tokens, 8),
            weights=control.weights.with_changes(steps=min(control.weights.steps, 2)),
            crows_rows=10 if control.crows_pairs is not None else None,
            bootstrap=min(control.bootstrap, 200),
        )
    evaluate = experiment.evaluate
    judge = evaluate.judge
    changes["evaluate"] = evaluate.with_changes(
        judge=None if judge is None else judge.with_changes(answers=_least(judge.answers, 2)),
        max_controls=_least(evaluate.max_controls, 4),
        min_controls=2,
        answers=_least(evaluate.answers, 1),
        max_answer_tokens=_least(evaluate.max_answer_tokens, 8),
        bootstrap=_least(evaluate.bootstrap, 200),
    )
    return experiment.with_changes(**changes)


def _few_tasks(tasks: TasksConfig, read_layer: Layer) -> TasksConfig:
    """Return reading tasks over few relations, in which each method tries few settings.

    What takes time is the number of settings times rows times tokens: each method reads one block,
    the decoder's own where none is named, and is tried on one row.
    """
    files = find_relation_files(tasks.relations, "tasks.relations")
    prompts, judge = tasks.prompts, tasks.judge
    return tasks.with_changes(
        relations=tuple(map(str, files.values()))[:RELATIONS],
        prompts=None if prompts is None else prompts.with_changes(max_controls=4, answer_tokens=4),
        layers=tasks.layers[:1] or (read_layer,),
        max_subjects=min(tasks.max_subjects, TESTED),
        min_subjects=2,
        max_asked=min(tasks.max_asked, 2 * ROWS),
        train_subjects=min(tasks.train_subjects, 2 * ROWS),
        train_sources=1,
        validation_subjects=1,
        answer_tokens=min(tasks.answer_tokens, 4),
        bootstrap=min(tasks.bootstrap, 200),
        judge=None if judge is None else judge.with_changes(answers=2),
    )


def _least(value: int | None, limit: int) -> int:
    return limit if value is None else min(value, limit)
