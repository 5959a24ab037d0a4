"""Crossed evaluation: the decoders of several experiments, each on the rows of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import ConfigError, StoreError
from core.records.result_table import ResultTable
from core.text.wording import ABSENT
from pipelines.artifacts.records import StepResult
from pipelines.reports.run.evaluation import readings_of
from pipelines.reports.run.tables import GAINS
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner
from pipelines.steps.order import baseline_step, run_evaluation
from pipelines.steps.shared.step import Step, StepCall

TRAINED = "train"
TESTED = "evaluate"
_AFTER = (TESTED, "judge", "report")
"""Steps that are computed for a decoder on the rows of another experiment."""
_LEFT_OUT = {"robustness", "tasks", "judge_tasks", "control", "judge_control"}
"""Steps that measure more of a decoder than how it reads rows."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A decoder on the rows of an experiment.

    Attributes:
        name: REF of the evaluation.
        reading: the tree of `run --json`.
        foreign: whether the rows' target is another than the decoder's.
        report: the page; None where there is none.
    """

    name: str
    reading: dict[str, Any]
    foreign: bool
    report: Path | None


def crossed(
    runners: Mapping[str, Runner], *, foreign: bool = False, command: str = ""
) -> dict[tuple[str, str], Crossing]:
    """Run every experiment, then every decoder on the rows of every other.

    A decoder on others' rows is an artifact `evaluate` like any other, with a report: its identity
    has that decoder and those rows, it is found again, goes on where it was stopped, and has the
    name `DECODER_on_ROWS`. Rows, views and conditions are those of the experiment whose rows they
    are; so are trained baselines, unless its target is a foreign one: there they are the decoder's
    own, those that both experiments have.

    Args:
        runners: experiment by the name under which it is shown; all with one root and read layer.
        foreign: the experiments may have different targets of one shape, such as a model and its
            fine-tune; each evaluation across them says so, and its identity too.
        command: the command line that makes this again, for the reports.

    Returns:
        What was found by (name of the decoder's experiment, name of the rows').

    Raises:
        StoreError: the targets are not one, and `foreign` was not asked for.
        ConfigError: rows of a foreign target have no store.
        LatentQAError: a step cannot be made.
    """
    for runner in runners.values():
        runner.prepare()
    targets = {name: _target(runner) for name, runner in runners.items()}
    _check_targets(runners, targets, foreign=foreign)
    out = {}
    for name, runner in runners.items():
        with runner.open():
            found = runner.run()
        out[name, name] = _crossing(name, found, foreign=False)
    for tested, rows in runners.items():
        for trained, decoder in runners.items():
            if trained == tested:
                continue
            strange = targets[trained] != targets[tested]
            name = f"{trained}_on_{tested}"
            with rows.open():
                found = _evaluate(name, decoder, rows, foreign=strange, command=command)
            out[trained, tested] = _crossing(name, found, foreign=strange)
    return out


def crossed_table(found: Mapping[tuple[str, str], Crossing]) -> str:
    """Write a Markdown table that groups the decoders by the data set they are judged on.

    Losses and gains are in nats a token, with 95 % intervals over controls.
    """
    head = ("trained on", "tested on", "split", "view", "n", "right", *GAINS)
    table = ResultTable(
        head=tuple(name.replace("_", " ") for name in head),
        rows=tuple(
            (
                *(trained, f"{tested} (foreign target)" if one.foreign else tested),
                *(case.split, case.view, case.metrics.grounded_gain.n),
                case.metrics.answer_loss["right"],
                *(getattr(case.metrics, name) for name in GAINS),
            )
            for (trained, tested), one in sorted(found.items(), key=lambda item: item[0][::-1])
            for case in readings_of(one.reading)
        ),
    )
    return table.to_markdown()


def _target(runner: Runner) -> dict[str, Any]:
    """Return the digests of the target of an experiment, which its evaluation depends on."""
    return _evaluation(runner).external(runner.outside)


def _check_targets(
    runners: Mapping[str, Runner], targets: Mapping[str, Mapping[str, Any]], *, foreign: bool
) -> None:
    first, *others = runners
    for name in others:
        own, found = targets[first], targets[name]
        which = next((k for k in sorted({*own, *found}) if own.get(k) != found.get(k)), None)
        if which is not None and not foreign:
            raise StoreError(
                f"crossed: {first} and {name} have different targets: {which} is "
                f"{str(own.get(which, ABSENT))[:24]} in {first} and "
                f"{str(found.get(which, ABSENT))[:24]} in {name}. Cross experiments with "
                "the same target, or allow others with --foreign-target; the results are "
                "then marked."
            )
    if len({repr(sorted(own.items())) for own in targets.values()}) > 1:
        for name, runner in runners.items():
            if "dump" not in _evaluation(runner).inputs:
                raise ConfigError(
                    f"crossed: {name} has no store (train.activations: live), so decoders "
                    "of another target cannot read its activations. Set train.activations "
                    "to `store`."
                )


def _evaluate(
    name: str, decoder: Runner, rows: Runner, *, foreign: bool, command: str
) -> RunResult:
    """Evaluate the decoder of one experiment on the rows of another, both finished."""
    asked = rows.experiment.evaluate
    kept = asked.baselines
    if foreign:
        # a baseline of the rows' experiment is an adapter of their target, not of the decoder's
        kept = tuple(one for one in kept if one in decoder.experiment.evaluate.baselines)
        for lost in sorted(set(asked.baselines) - set(kept)):
            rows.console.say(
                f"{name}: no `{lost}`, because the decoder's experiment did not train it."
            )
    experiment = rows.experiment.model_copy(
        update={
            "experiment": name,
            "train": decoder.experiment.train,
            "evaluate": asked.model_copy(update={"baselines": kept}),
            **dict.fromkeys(("robustness", "tasks", "control")),
        }
    )
    table = {step.name: step for step in rows.steps}
    decoders = {TRAINED, *map(baseline_step, asked.baselines)}
    before = [table[one] for one in table if one not in {*decoders, *_LEFT_OUT, *_AFTER}]
    lost_roles = decoders - {TRAINED, *map(baseline_step, kept)}
    tested = _without(table[TESTED], lost_roles)
    if foreign:
        tested = _foreign(tested, decoder)
    after = [_without(table[one], _LEFT_OUT) for one in _AFTER[1:] if one in table]
    runner = Runner(
        experiment,
        rows.root,
        command=command,
        console=rows.console,
        steps=[*before, tested, *after],
    )
    for step in before:
        runner.step(step.name)
    for role in sorted(decoders - lost_roles):
        source = decoder if foreign or role == TRAINED else rows
        runner.runs[role] = source.runs[role]
    for step in (tested, *after):
        runner.step(step.name)
    return runner.finish()


def _without(step: Step, roles: set[str]) -> Step:
    """Return the step without some of its inputs."""
    inputs = {role: name for role, name in step.inputs.items() if role not in roles}
    return replace(step, inputs=inputs)


def _foreign(evaluate: Step, decoder: Runner) -> Step:
    """Return the step that evaluates a decoder of another target on the rows of `evaluate`."""
    own = decoder.outside

    def run(call: StepCall) -> StepResult:
        return run_evaluation(replace(call, outside=own), foreign=True)

    return replace(
        evaluate,
        run=run,
        config=lambda experiment: {**evaluate.config(experiment), "foreign_target": True},
        external=lambda outside: evaluate.external(own),
        locations=lambda experiment: {
            **evaluate.locations(decoder.experiment),
            "foreign": evaluate.locations(experiment),
        },
    )


def _crossing(name: str, found: RunResult, *, foreign: bool) -> Crossing:
    return Crossing(name, found.metrics["reading"], foreign, found.report)


def _evaluation(runner: Runner) -> Step:
    return next(step for step in runner.steps if step.name == TESTED)
