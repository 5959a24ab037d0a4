"""The steps of an experiment: what decides each, what it is made from, and which room makes it.

A step imports its room inside `run`, so that a plan or a rerun with nothing changed loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation_store.config import CaptureConfig
from generators.canonical import digest
from generators.errors import ConfigError
from generators.import_config import ImportConfig
from generators.progress import Progress
from pipelines.artifacts import Artifact
from pipelines.config import Experiment
from pipelines.identity import plain
from pipelines.metrics import metrics_of
from pipelines.records import StepResult
from pipelines.report_inputs import ReportInputs, ReportStep

if TYPE_CHECKING:
    from activation_store.model_files import ModelFiles


class Outside:
    """What an experiment takes from outside the artifact root, found at the first use.

    Args:
        experiment: the experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @cached_property
    def model(self) -> ModelFiles:
        """The target's files.

        Raises:
            ModelError: the reference leads to no model.
        """
        from activation_store.model_files import resolve_model

        return resolve_model(self.experiment.dump.model, self.experiment.dump.adapter)

    @cached_property
    def model_digests(self) -> dict[str, str]:
        """What the target is: digests of weights, configuration, tokenizer, template, adapter."""
        return self.model.digests()

    @cached_property
    def data_folder(self) -> Path:
        """Folder of the published files."""
        if self.experiment.data is None:
            raise ConfigError(f"{self.experiment.experiment}: has no section data.")
        return Path(self.experiment.data.path).expanduser()

    @cached_property
    def data_digests(self) -> dict[str, str]:
        """Digests of the published files, by name.

        Raises:
            DataError: the folder or a file that is needed is missing.
        """
        from generators.importing import source_digests

        return source_digests(self.data_folder)

    @cached_property
    def labels_digest(self) -> str:
        """Digest of the labels that have questions: all that conversations take from qa.json.

        Raises:
            DataError: the file is missing or malformed.
        """
        from generators.latentqa_files import read_questions_by_label

        entries, _ = read_questions_by_label(self.data_folder)
        return digest(sorted(entry.label for entry in entries))


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCall:
    """One execution of one step."""

    experiment: Experiment
    """The whole experiment; a step reads its own section and `runtime`."""
    outside: Outside
    """Model files and source data."""
    inputs: Mapping[str, Artifact]
    """The step's inputs by role."""
    out: Path
    """Where the output goes; may hold what an earlier attempt wrote."""
    work: Path
    """Scratch that outlives a kill and is removed on completion."""
    progress: Progress
    """Listener."""
    runs: tuple[ReportStep, ...]
    """The steps that this run has finished."""
    command: str
    """The command line that makes this run again."""

    def data(self, role: str) -> Path:
        """Output folder of the input `role`."""
        return self.inputs[role].data


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step; its name is the kind of its artifacts."""

    name: str
    version: int
    """Raised where the same config gives another output than before."""
    entry: str
    """Module of the room function; its imports are the step's source files."""
    run: Callable[[StepCall], StepResult]
    """Makes the output.

    Raises:
        DamagedError: an input's bytes are not the committed ones; that input is then made again.
    """
    config: Callable[[Experiment], dict[str, Any]]
    """Every setting that decides the output."""
    inputs: Mapping[str, str]
    """Role of each input to the step that makes it."""
    external: Callable[[Outside], dict[str, str]]
    """Digests of what comes from outside."""
    locations: Callable[[Experiment], dict[str, Any]] = lambda experiment: {}
    """Where what comes from outside was: for the record, never hashed."""
    listed: bool = True
    """Whether the step stands among those of `run --json`."""


def steps_for(experiment: Experiment) -> tuple[Step, ...]:
    """The steps of `experiment`, each after those that it is made from."""
    return (CONVERSATIONS, QUESTIONS, dump_of("conversations"), TRAIN, EVALUATE, REPORT)


def _import_conversations(call: StepCall) -> StepResult:
    from generators.importing import import_conversations

    config = ImportConfig.model_validate(_import_config(call.experiment))
    return StepResult(
        counts=import_conversations(call.outside.data_folder, call.out, config=config)
    )


def _import_questions(call: StepCall) -> StepResult:
    from generators.importing import import_questions

    counts = import_questions(call.outside.data_folder, call.data("conversations"), call.out)
    return StepResult(counts=counts)


def _dump(call: StepCall) -> StepResult:
    from activation_store.dump import dump

    counts = dump(
        call.data("conversations"),
        call.out,
        config=CaptureConfig.model_validate(plain(call.experiment.dump, CaptureConfig)),
        model=call.outside.model,
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts=counts)


def _train(call: StepCall) -> StepResult:
    from trainers.training import train

    counts = train(
        call.data("conversations"),
        call.data("questions"),
        call.data("dump"),
        call.out,
        call.work,
        config=call.experiment.train,
        model=call.outside.model,
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts=counts)


def _evaluate(call: StepCall) -> StepResult:
    from evaluators.evaluation import evaluate

    reading = evaluate(
        call.data("conversations"),
        call.data("questions"),
        call.data("dump"),
        call.data("train"),
        call.out,
        call.work,
        config=call.experiment.evaluate,
        model=call.outside.model,
        runtime=call.experiment.runtime,
        progress=call.progress,
    )
    return StepResult(counts={"reading": reading})


def _report(call: StepCall) -> StepResult:
    from pipelines.report import write_report

    inputs = ReportInputs(
        experiment=call.experiment.experiment,
        config=call.experiment.model_dump(mode="json"),
        command=call.command,
        metrics=metrics_of({run.step: run.record for run in call.runs}),
        steps=call.runs,
    )
    page = write_report(inputs, call.out)
    return StepResult(counts={"page": page.relative_to(call.out).as_posix()})


def _import_config(experiment: Experiment) -> dict[str, Any]:
    if experiment.data is None:
        raise ConfigError(f"{experiment.experiment}: has no section data.")
    return plain(experiment.data, ImportConfig)


def _data_location(experiment: Experiment) -> dict[str, Any]:
    return {"data": experiment.data.path if experiment.data else None}


def _model_location(experiment: Experiment) -> dict[str, Any]:
    return {"model": experiment.dump.model, "adapter": experiment.dump.adapter}


def _view_digests(outside: Outside) -> dict[str, str]:
    views = {name: d for name, d in outside.data_digests.items() if name != "qa.json"}
    return {**views, "qa.json labels": outside.labels_digest}


CONVERSATIONS = Step(
    name="conversations",
    version=1,
    entry="generators.importing",
    run=_import_conversations,
    config=_import_config,
    inputs={},
    external=_view_digests,
    locations=_data_location,
)

QUESTIONS = Step(
    name="questions",
    version=1,
    entry="generators.importing",
    run=_import_questions,
    config=lambda experiment: {},
    inputs={"conversations": "conversations"},
    external=lambda outside: {"qa.json": outside.data_digests["qa.json"]},
    locations=_data_location,
)


def dump_of(conversations: str) -> Step:
    """The step `dump` over the conversations that the step of that name makes."""
    return Step(
        name="dump",
        version=1,
        entry="activation_store.dump",
        run=_dump,
        config=lambda experiment: plain(experiment.dump, CaptureConfig),
        inputs={"conversations": conversations},
        external=lambda outside: outside.model_digests,
        locations=_model_location,
    )


TRAIN = Step(
    name="train",
    version=1,
    entry="trainers.training",
    run=_train,
    config=lambda experiment: plain(experiment.train),
    inputs={"conversations": "conversations", "questions": "questions", "dump": "dump"},
    external=lambda outside: outside.model_digests,
    locations=_model_location,
)

EVALUATE = Step(
    name="evaluate",
    version=1,
    entry="evaluators.evaluation",
    run=_evaluate,
    config=lambda experiment: plain(experiment.evaluate),
    inputs={
        "conversations": "conversations",
        "questions": "questions",
        "dump": "dump",
        "train": "train",
    },
    external=lambda outside: outside.model_digests,
    locations=_model_location,
)

REPORT = Step(
    name="report",
    version=1,
    entry="pipelines.report",
    run=_report,
    config=lambda experiment: {"experiment": experiment.experiment},
    inputs={
        "conversations": "conversations",
        "questions": "questions",
        "dump": "dump",
        "train": "train",
        "evaluate": "evaluate",
    },
    external=lambda outside: {},
    listed=False,
)
