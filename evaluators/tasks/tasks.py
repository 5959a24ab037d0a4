"""The step `tasks`: what LIT and rival methods read off activations, where answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from activation_store.model_files.files import ModelFiles
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import (
    load_model,
    load_tokenizer,
    use_threads,
)
from core.documents.canonical import digest
from core.errors import DataError
from core.files import storage_errors, write_json
from core.progress import Progress, silent
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from core.runtime import Runtime
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from evaluators.config import Baseline
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.result_files import RESULTS, RESULTS_FILE, write_table
from evaluators.tasks.config import PredictorName, TasksConfig
from evaluators.tasks.graded_task import grade_tasks
from evaluators.tasks.mean_task import measure_mean
from evaluators.tasks.measure import PredictorAnswers, measure_task, run_predictor, task_answer_rows
from evaluators.tasks.metrics import MEAN, TaskMetrics, TasksMetrics
from evaluators.tasks.predictors import PREDICTORS
from evaluators.tasks.predictors.base import PredictorContext
from evaluators.tasks.prompt_task import build_prompt_tasks
from evaluators.tasks.relation_task import build_relation_task, find_hops
from evaluators.tasks.result_files import TASK_ANSWERS, TASK_ANSWERS_FILE, TASKS_FILE, task_rows
from evaluators.tasks.rows import TaskData
from evaluators.tasks.shift_task import shift_tasks
from generators.kinds.relation import RELATION
from generators.kinds.relation_files import read_relation
from trainers.config import LOG_FILE

_LAYERS = 6
"""Blocks that are read where `tasks.layers` names none, besides the decoder's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInputs:
    """The decoder, its target and the files of relations from which the step starts.

    Attributes:
        model: files of the decoder's target.
        decoder: folder of the decoder.
        baselines: folder of each trained baseline.
        relations: file of each relation by the name of its task.
        other: files of the model of shift tasks; None where there is none.
        conversations: folder of the decoder's own rows, whose subjects stay in their splits, and
            whose hidden prompts are read; None where it is not at hand.
    """

    model: ModelFiles
    decoder: Path
    baselines: Mapping[Baseline, Path] = field(default_factory=dict)
    relations: Mapping[str, Path] = field(default_factory=dict)
    other: ModelFiles | None = None
    conversations: Path | None = None


def run_tasks(
    inputs: TaskInputs,
    out: Path,
    work: Path,
    *,
    config: TasksConfig,
    runtime: Runtime,
    progress: Progress = silent,
) -> TasksMetrics:
    """Compare methods on every task.

    Args:
        inputs: decoders, target and files of tasks.
        out: receives the metrics as JSON, and every answer and every number as Parquet.
        work: keeps each method's answers as they are written; an interrupted run resumes.
        config: the methods, and the sizes of tasks.
        runtime: device and threads.
        progress: told finished methods.

    Raises:
        DataError: a file of relations, or the conversations, cannot be used.
        StoreError: decoder, baselines and model do not belong together.
    """
    use_threads(runtime)
    decoder = Decoder.load(inputs.decoder, inputs.model, config.compute_dtype, runtime)
    for name, folder in inputs.baselines.items():
        decoder.add_adapter(name, folder)
    layers = choose_layers(decoder, config)
    cache = PartialResultCache(work)
    measured: dict[str, TaskMetrics] = {}
    answers: list[Mapping[str, object]] = []
    total = _count_tasks(inputs, config)
    checkpoints = _count_checkpoints(inputs.decoder)
    with storage_errors(out):
        for data in _tasks(inputs, config, decoder, layers, cache, runtime=runtime):
            if data.name in measured:
                raise DataError(
                    f"two tasks are called {data.name}; rename the file of relations that is "
                    "called so, or like it."
                )
            context = PredictorContext(
                decoder=decoder,
                baselines=tuple(inputs.baselines),
                data=data,
                answer_tokens=data.answer_tokens or config.answer_tokens,
            )
            tell = partial(progress, min(len(measured), total), total)
            found = _run_task(context, config, cache, tell)
            measured[data.name] = measure_task(data, found, config, checkpoints)
            answers += task_answer_rows(data, found)
        progress(total, total, "tasks")
        mean = measure_mean(answers, measured, inputs.relations, config)
        if mean is not None:
            measured.setdefault(MEAN, mean)
        metrics = TasksMetrics(tasks=measured)
        write_json(out / TASKS_FILE, metrics.to_json())
        write_table(out / TASK_ANSWERS_FILE, answers, TASK_ANSWERS)
        numbers = task_rows(metrics, min_intervals=config.min_intervals)
        write_table(out / RESULTS_FILE, numbers, RESULTS)
    return metrics


def _count_tasks(inputs: TaskInputs, config: TasksConfig) -> int:
    prompts = config.prompts
    hidden = 0 if prompts is None else len(prompts.splits) * (1 + prompts.decoys)
    # two hops may be fewer: it depends on which objects lead on
    return (
        len(inputs.relations) * (1 + len(config.grades) + 2 * (config.shift is not None)) + hidden
    )


def _tasks(
    inputs: TaskInputs,
    config: TasksConfig,
    decoder: Decoder,
    layers: Sequence[int],
    cache: PartialResultCache,
    *,
    runtime: Runtime,
) -> Iterator[TaskData]:
    """Build one task after the other, so that one task's activations are in memory."""
    other: TargetNetwork | None = None
    relations = [read_relation(path) for path in inputs.relations.values()]
    rows: list[Conversation] = []
    if inputs.conversations is not None:
        rows = read_conversations(inputs.conversations / CONVERSATIONS_FILE)
    splits = {row.label: row.split for row in rows if row.kind == RELATION}
    for relation in relations:
        data = build_relation_task(decoder, relation, config, layers, cache=cache, splits=splits)
        yield data
        if data.why_not is None and config.grades:
            hops = []
            if "two_hop" in config.grades:
                others = [other for other in relations if other is not relation]
                hops = find_hops(decoder, data, others, config)
            yield from grade_tasks(data, hops, config)
        if data.why_not is None and config.shift is not None:
            other = other or _load_other(inputs, decoder, runtime)
            yield from shift_tasks(data, decoder, other, config.shift)
    if config.prompts is not None:
        yield from build_prompt_tasks(decoder, rows, config, config.prompts, layers)


def _run_task(
    context: PredictorContext,
    config: TasksConfig,
    cache: PartialResultCache,
    tell: Callable[[str], None],
) -> dict[str, PredictorAnswers]:
    """Let every method answer that can; none where the task is not measured."""
    data = context.data
    found: dict[str, PredictorAnswers] = {}
    if data.why_not is not None:
        tell(data.name)
        return found
    for name in config.predictors:
        tell(f"{data.name}: {name}")
        own = _answers(name, context, cache)
        if own is not None:
            found[name] = own
    return found


def _count_checkpoints(decoder: Path) -> int | None:
    """Count the checkpoints among which a training chose; None where its log is not there."""
    try:
        lines = (decoder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    steps = [int(line["step"]) for line in map(json.loads, lines) if "validation" in line]
    return sum(step > 0 for step in steps)


def choose_layers(decoder: Decoder, config: TasksConfig) -> tuple[int, ...]:
    """Choose the blocks whose activations rows have, the decoder's among them."""
    shape = decoder.shape
    named: Sequence[int] = [shape.layer(layer, "tasks.layers") for layer in config.layers]
    if not named:
        named = np.linspace(0, shape.n_blocks - 1, min(_LAYERS, shape.n_blocks)).round().tolist()
    return tuple(sorted({*map(int, named), *decoder.layers}))


def _answers(
    name: PredictorName, context: PredictorContext, cache: PartialResultCache
) -> PredictorAnswers | None:
    """Let a method answer, or take what it answered before; None where it cannot be made."""
    kind, data = PREDICTORS[name], context.data
    predictor = kind.make(context)
    if predictor is None:
        return None
    subject = digest(
        [
            [row.row_id for part in (data.train, data.validation, data.test) for row in part],
            [list(row.options) for row in data.test],
            [dict(setting) for setting in predictor.settings()],
        ]
    )

    def answer() -> list[dict[str, Any]]:
        return [run_predictor(predictor, kind.sees, data).to_json()]

    (found,) = cache.load_or_measure(f"{data.name}.{name}", subject, answer)
    return PredictorAnswers.model_validate(found)


def _load_other(inputs: TaskInputs, decoder: Decoder, runtime: Runtime) -> TargetNetwork:
    """Load the model whose activations are read in shift tasks."""
    assert inputs.other is not None, "shift tasks need another model"
    with quiet_libraries():
        net = load_model(inputs.other, dtype=decoder.dtype, device=decoder.device, runtime=runtime)
    return TargetNetwork(net, load_tokenizer(inputs.other))
