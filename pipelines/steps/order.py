"""The steps of an experiment, in order, and the function that computes each.

A step imports the package of its function inside `run`, so that a plan or a rerun with nothing
changed loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from activation_store.layout.config import CaptureConfig
from evaluators.config import Baseline
from pipelines.artifacts.cache_key import deciding, plain, plain_computed
from pipelines.artifacts.records import StepResult
from pipelines.experiment.config import Experiment
from pipelines.reports.run.inputs import ReportInputs, printed_config
from pipelines.steps.complete import COMPLETE
from pipelines.steps.control import CONTROL
from pipelines.steps.dump import dump_step
from pipelines.steps.generate import GENERATED
from pipelines.steps.import_data import IMPORTED, OWN
from pipelines.steps.judge import JUDGE, JUDGE_CONTROL, JUDGE_TASKS
from pipelines.steps.quality import QUALITY, quality_step
from pipelines.steps.robustness import ROBUSTNESS, robustness_step
from pipelines.steps.shared.metrics import metrics_of
from pipelines.steps.shared.step import Step, StepCall, model_location
from pipelines.steps.tasks import TASKS, tasks_step
from trainers.config import Variant


def steps_for(experiment: Experiment) -> tuple[Step, ...]:
    """Return the steps of `experiment`, each after those that it is made from."""
    source = GENERATED
    if experiment.data is not None:
        source = OWN if experiment.data.format == "conversations" else IMPORTED
        if experiment.generate is not None:  # of it, the questions alone
            source = (source[0], GENERATED[1])
    completed = (COMPLETE,) if experiment.complete is not None else ()
    conversations = "complete" if completed else "conversations"
    checked = (quality_step(conversations),) if experiment.quality is not None else ()
    questions = QUALITY if checked else "questions"
    evaluate, tasks, control = experiment.evaluate, experiment.tasks, experiment.control
    sections = {
        JUDGE.name: evaluate.judge,
        ROBUSTNESS: experiment.robustness,
        TASKS: tasks,
        JUDGE_TASKS.name: tasks and tasks.judge,
        CONTROL.name: control,
        JUDGE_CONTROL.name: control and control.judge,
    }
    rest = _from_conversations(
        conversations,
        questions,
        evaluate.baselines,
        live=experiment.train.activations == "live",
        optional=[name for name, section in sections.items() if section is not None],
    )
    return (*source, *completed, *checked, *rest)


def every_step() -> tuple[Step, ...]:
    """Return the steps that any experiment can have, those of all sources of rows included."""
    checked = quality_step("conversations")
    rest = _from_conversations("conversations", "questions", get_args(Baseline), optional=None)
    return (*IMPORTED, *OWN, *GENERATED, COMPLETE, checked, *rest)


def _train(call: StepCall, variant: Variant = "own") -> StepResult:
    from activation_store.target.worker_devices import training_processes
    from core.processes.launch import run_distributed
    from trainers.training import train

    config, runtime = call.experiment.train, call.experiment.runtime
    processes = training_processes(runtime, config.rows_per_batch)
    run = train if processes == 1 else partial(run_distributed, train, processes)
    found = run(
        call.decoder_inputs(),
        call.out,
        call.work,
        config=config,
        runtime=runtime,
        variant=variant,
        progress=call.progress,
    )
    return StepResult(counts=found.to_json())


def run_evaluation(call: StepCall, *, foreign: bool = False) -> StepResult:
    """Evaluate a decoder.

    Args:
        call: the execution.
        foreign: allow a store of another target than the decoder's.
    """
    from evaluators.evaluation import TrainedDecoders, evaluate
    from evaluators.slice_tasks import measure_ahead

    config, runtime = call.experiment.evaluate, call.experiment.runtime
    inputs = call.decoder_inputs()
    decoders = TrainedDecoders(
        decoder=call.data("train"),
        baselines={name: call.data(baseline_step(name)) for name in config.baselines},
    )
    measure_ahead(inputs, decoders, call.work, config=config, runtime=runtime, foreign=foreign)
    found = evaluate(
        inputs,
        decoders,
        call.out,
        call.work,
        config=config,
        runtime=runtime,
        foreign=foreign,
        progress=call.progress,
    )
    return StepResult(counts=found.to_json())


def _report(call: StepCall) -> StepResult:
    from pipelines.reports.run.report import write_report

    inputs = ReportInputs(
        experiment=call.experiment,
        command=call.command,
        metrics=metrics_of({made.kind: made.record for made in call.finished}),
        steps=call.finished,
    )
    page = write_report(inputs, call.out)
    return StepResult(counts={"page": page.relative_to(call.out).as_posix()})


def _with_capture(own: dict[str, Any], experiment: Experiment, *, live: bool) -> dict[str, Any]:
    """Return the settings of a step, and those of the capture where the step runs it itself."""
    capture = deciding(plain(experiment.dump, CaptureConfig))
    return {**own, "capture": capture} if live else own


def _train_config(experiment: Experiment, *, live: bool) -> dict[str, Any]:
    """Return the settings of the training.

    They say where rows of later epochs are given another layer than they once were: a new step
    version would make every other training a miss too.
    """
    own = _with_capture(deciding(plain(experiment.train)), experiment, live=live)
    train = experiment.train
    if train.decoder.last_tokens is None:
        del own["decoder"]["tokens"]  # trainings from before there was a choice keep their keys
    if not train.noise:
        del own["noise"]
    if train.keep == "best":
        del own["keep"]
    sampled = len(train.decoder.read_layers) > 1 and train.decoder.combine == "sampled"
    if sampled and (train.epochs > 1 or train.max_steps is not None):
        own["layers_drawn"] = "each pass"
    if not train.contrastive:
        del own["contrastive"]  # so that trainings of before it are found again
    return own


def _evaluate_config(experiment: Experiment, *, live: bool) -> dict[str, Any]:
    own = _with_capture(plain_computed(experiment.evaluate), experiment, live=live)
    del own["judge"]  # a step of its own
    return own


_BASELINE_VERSIONS: Mapping[Baseline, int] = {"prior": 4, "visible_text": 1, "text": 3}


def baseline_step(name: Baseline) -> str:
    """Return the name of the step that trains a baseline."""
    return f"train_{name}"


def _baseline_config(
    train: Callable[[Experiment], dict[str, Any]], name: Baseline, experiment: Experiment
) -> dict[str, Any]:
    settings = {**train(experiment), "variant": name}
    settings.pop("contrastive", None)  # a rival has nothing to be contrasted
    return settings


def _from_conversations(
    conversations: str,
    questions: str,
    baselines: Sequence[Baseline],
    *,
    live: bool = False,
    optional: Collection[str] | None,
) -> tuple[Step, ...]:
    """Return the steps that read the conversations and the questions.

    All conversations are dumped: a check that drops questions leaves the store a hit.

    Args:
        conversations: name of the step that makes them.
        questions: likewise.
        baselines: decoders that are trained for comparison.
        live: compute activations on the fly, without a dump.
        optional: names of the steps after the evaluation that are wanted; None for all.
    """
    tables = {"conversations": conversations, "questions": questions}
    if not live:
        tables["dump"] = "dump"
    train = Step(
        name="train",
        version=3,
        entry="trainers.training",
        run=_train,
        config=lambda experiment: _train_config(experiment, live=live),
        inputs=tables,
        external=lambda outside: outside.model_digests,
        locations=model_location,
    )
    trained = tuple(
        replace(
            train,
            name=baseline_step(name),
            version=_BASELINE_VERSIONS[name],
            run=partial(_train, variant=name),
            config=partial(_baseline_config, train.config, name),
        )
        for name in baselines
    )
    decoders = {name: name for name in ("train", *map(baseline_step, baselines))}
    evaluate = Step(
        name="evaluate",
        version=10,
        entry="evaluators.evaluation",
        run=run_evaluation,
        config=lambda experiment: _evaluate_config(experiment, live=live),
        inputs={**tables, **decoders},
        external=lambda outside: outside.model_digests,
        locations=model_location,
    )
    measured = (
        evaluate,
        JUDGE,
        robustness_step(evaluate),
        tasks_step([step.name for step in trained], conversations),
        JUDGE_TASKS,
        CONTROL,
        JUDGE_CONTROL,
    )
    later = [one for one in measured if optional is None or one.name in ("evaluate", *optional)]
    report = Step(
        name="report",
        version=14,
        entry="pipelines.reports.run.report",
        run=_report,
        config=printed_config,
        inputs={**tables, **{one.name: one.name for one in (train, *later)}},
        external=lambda outside: {},
        reads_all=True,
        listed=False,
    )
    dump = () if live else (dump_step(conversations),)
    return (*dump, train, *trained, *later, report)
