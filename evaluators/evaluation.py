"""The step `evaluate`: does the decoder read? Losses under every condition, gains, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from activation_store.read.reader import ActivationStore
from activation_store.target.load import use_threads
from core.errors import DataError
from core.files import storage_errors, write_json
from core.progress import Progress, silent
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    write_dropped,
)
from core.records.tables import Dropped
from core.runtime import Runtime
from decoder.binding import read_sidecar
from decoder.model import Decoder
from decoder.sources.live import LiveActivations
from decoder.sources.step_inputs import StepInputs
from evaluators.config import Baseline, EvaluateConfig
from evaluators.measure.foreign import open_foreign
from evaluators.measure.metrics import EvaluationMetrics, ForeignTarget, SliceMetrics
from evaluators.measure.partial_results import PartialResultCache
from evaluators.measure.result_files import (
    ANSWERS,
    ANSWERS_FILE,
    ITEMS,
    ITEMS_FILE,
    LOSSES,
    LOSSES_FILE,
    METRICS_FILE,
    RESULTS,
    RESULTS_FILE,
    write_table,
)
from evaluators.measure.slices import EvalSlice, drop_unwritable, select_slices
from evaluators.slice_evaluator import EvalSources, SliceEvaluator, SliceResult
from trainers.data.rows import load_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedDecoders:
    """The folders of the decoders that an evaluation compares.

    Attributes:
        decoder: the decoder itself.
        baselines: folder of each trained baseline.
    """

    decoder: Path
    baselines: Mapping[Baseline, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenEvaluation:
    """An evaluation whose models are loaded.

    Attributes:
        sources: what every slice is evaluated with.
        slices: parts of the data, in order.
        dropped: rows that the decoder's chat template cannot write.
        foreign_target: the other target whose store it is; None for the decoder's own.
    """

    sources: EvalSources
    slices: Sequence[EvalSlice]
    dropped: Sequence[Dropped]
    foreign_target: ForeignTarget | None


def evaluate(
    inputs: StepInputs,
    decoders: TrainedDecoders,
    out: Path,
    work: Path,
    *,
    config: EvaluateConfig,
    runtime: Runtime,
    foreign: bool = False,
    progress: Progress = silent,
) -> EvaluationMetrics:
    """Evaluate a decoder on held-out rows.

    Args:
        inputs: tables, store and target.
        decoders: the decoder, and the trained baselines that `config` names.
        out: receives the metrics as JSON; every single loss, the written answers, the items of
            identification, and all numbers, groups included, as Parquet.
        work: keeps results as they are measured; an interrupted evaluation resumes.
        config: what is measured.
        runtime: device and threads.
        foreign: the store may be another target's of the same shape; every result then says so.
        progress: receives measured results.

    Raises:
        DataError: none of the splits has a row.
        StoreError: decoder, store and model do not belong together.
        ConfigError: `foreign` without a store.
    """
    opened = open_evaluation(inputs, decoders, config, runtime, foreign=foreign)
    sources, slices = opened.sources, opened.slices
    cache = PartialResultCache(work)
    evaluator = SliceEvaluator(sources, config, cache, slices=len(slices), progress=progress)
    with storage_errors(out):
        results = [evaluator.evaluate(eval_slice) for eval_slice in slices]
        _write_tables(results, out, foreign=sources.foreign)
        if opened.dropped:
            write_dropped(out / DROPPED_FILE, opened.dropped)
        reading: dict[str, dict[str, SliceMetrics]] = {}
        for result in results:
            view = result.eval_slice.name
            reading.setdefault(result.eval_slice.split, {})[view] = result.metrics
        metrics = EvaluationMetrics(reading=reading, foreign_target=opened.foreign_target)
        write_json(out / METRICS_FILE, metrics.to_json())
    return metrics


def open_evaluation(
    inputs: StepInputs,
    decoders: TrainedDecoders,
    config: EvaluateConfig,
    runtime: Runtime,
    *,
    foreign: bool,
) -> OpenEvaluation:
    """Load the decoders, open the activations, and select the slices: arguments of `evaluate`.

    Raises:
        DataError, StoreError, ConfigError: as `evaluate` raises them.
    """
    use_threads(runtime)
    activations: ActivationStore | LiveActivations
    foreign_target = None
    if foreign:
        activations, foreign_target = open_foreign(inputs, runtime)
    else:
        normalisation = read_sidecar(decoders.decoder)[0].normalisation
        activations = inputs.open_activations(runtime, normalisation)
    decoder = Decoder.load(decoders.decoder, inputs.model, config.compute_dtype, runtime)
    for baseline in config.baselines:
        decoder.add_adapter(baseline, decoders.baselines[baseline])
    if isinstance(activations, LiveActivations):
        activations.attach_decoder(decoder)
    activations.last_tokens = decoder.config.last_tokens
    asked = config.read_layer
    layers = decoder.select_layers(
        None if asked is None else decoder.shape.layer(asked, "evaluate.read_layer")
    )
    for layer in layers.layers:
        activations.only_layer(layer)
    rows, dropped, unwritable = drop_unwritable(
        load_rows(inputs.conversations, inputs.questions, activations),
        decoder.prompt,
        config,
    )
    slices = select_slices(rows, config, decoder.config.masking, unwritable)
    if not slices:
        raise DataError(
            f"evaluate: no row in splits {', '.join(config.splits)} and views "
            f"{', '.join(config.views)}: nothing can be judged. Take at least three controls, or "
            "change evaluate.splits or the splits (data.splits, generate.conversations.splits, or "
            "the rows' own)."
        )
    sources = EvalSources(
        store=activations,
        decoder=decoder,
        layers=layers,
        table=read_conversations(inputs.conversations / CONVERSATIONS_FILE),
        foreign=foreign_target is not None,
    )
    return OpenEvaluation(
        sources=sources, slices=slices, dropped=dropped, foreign_target=foreign_target
    )


def _write_tables(results: Sequence[SliceResult], out: Path, *, foreign: bool) -> None:
    """Write the Parquet files of all slices."""
    for name, schema in (
        (LOSSES_FILE, LOSSES),
        (ANSWERS_FILE, ANSWERS),
        (ITEMS_FILE, ITEMS),
        (RESULTS_FILE, RESULTS),
    ):
        rows = [
            {
                "split": result.eval_slice.split,
                "view": result.eval_slice.name,
                "foreign_target": foreign,
                **row,
            }
            for result in results
            for row in result.tables.get(name, ())
        ]
        write_table(out / name, rows, schema)
