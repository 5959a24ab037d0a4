"""The step `train`: a store and its questions in, a decoder out."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.trainer_callback import TrainerCallback

from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import model_shape, use_threads
from activation_store.target.number_format import resolve_section
from core.errors import DataError
from core.files import storage_errors, write_bytes
from core.progress import Progress, silent
from core.records.table_files import (
    DROPPED_FILE,
    write_dropped,
)
from core.records.tables import Dropped
from core.runtime import Runtime
from decoder.binding import Binding
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.sources.live import LiveActivations
from decoder.sources.step_inputs import StepInputs
from decoder.visible_tokens import ActivationSource
from trainers.config import LOG_FILE, TrainConfig, Variant
from trainers.data.dataset import RowDataset
from trainers.data.dataset_builder import DatasetBuilder
from trainers.data.normalisation import measure_statistics
from trainers.distributed.processes import DistributedContext
from trainers.loop import checkpoints
from trainers.loop.throughput import Throughput
from trainers.loop.trainer import (
    VALIDATION,
    DecoderTrainer,
    NonFiniteGuard,
    ProgressReporter,
    ValidationPatience,
    count_optimiser_steps,
    make_training_arguments,
    patience_exhausted,
    steps_per_epoch,
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Counts, throughput and losses of a training; losses in nats per token.

    Attributes:
        steps: optimiser steps done.
        rows: training rows.
        questions: questions trained on, a repeated one counted each time.
        throughput: of this process; None where no step was left to do.
        loss: mean of the last tenth of the steps.
        validation: the kept checkpoint's `right`; None where there was no row to validate on.
        untrained_validation: the same of the untrained decoder.
        best_step: step of the kept checkpoint.
        trainable_parameters: numbers that the adapter has.
        dropped: questions that were not used, by reason.
    """

    steps: int
    rows: int
    questions: int
    throughput: Throughput | None
    loss: float
    validation: float | None
    untrained_validation: float | None
    best_step: int
    trainable_parameters: int
    dropped: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return what the artifact's record keeps: the values by name, throughput among them."""
        values = asdict(self)
        speed = values.pop("throughput")
        return {**values, **(speed or {"questions_per_second": 0.0})}


def train(
    inputs: StepInputs,
    out: Path,
    work: Path,
    *,
    config: TrainConfig,
    runtime: Runtime,
    variant: Variant = "own",
    progress: Progress = silent,
) -> TrainResult:
    """Train a decoder to answer from activations.

    The training resumes from the last whole checkpoint in `work`; on a CPU in float32 the result is
    then, to the bit, that of an undisturbed run. Without a row to validate on, the last checkpoint
    is kept. Where several processes call this (core/processes/launch.py), they train together, and
    the first writes.

    Args:
        inputs: tables, store and target.
        out: receives the adapter, latentqa.json, log.jsonl and, where there are questions
            that the chat template cannot write, dropped.parquet with them.
        work: receives checkpoints.
        config: settings of the training.
        runtime: device, threads and processes.
        variant: input that the decoder gets of a row; other than `own` for the trained baselines.
        progress: receives finished optimiser steps.

    Raises:
        DataError: no row to train on.
        ConfigError: the loss is no longer finite, or the device cannot be trained on.
        ModelError: the model cannot be a decoder, or not be sharded.
        StoreError: the store is another model's, or lacks the layer.
        DamagedError: the store's bytes are not those committed.
        StorageError: the disk is full; the last whole checkpoint stays.
    """
    use_threads(runtime)
    config = resolve_section(config, runtime)
    distributed = DistributedContext.from_environment(runtime)
    activations = inputs.open_activations(runtime, config.decoder.normalisation)
    settings = config.decoder.with_block_numbers(model_shape(inputs.model))
    config = config.model_copy(update={"decoder": settings})
    layer = _main_layer(settings, activations)
    decoder = _create_decoder(inputs, config, layer, distributed, runtime)
    if runtime.checkpointing:
        decoder.recompute_blocks()
    if isinstance(activations, LiveActivations):
        activations.attach_decoder(decoder)
    activations.last_tokens = config.decoder.last_tokens
    builder = DatasetBuilder(inputs, activations, decoder, layer, config, variant)
    rows = builder.build("train")
    if rows is None:
        raise DataError(
            f"train: no row of split train in views {', '.join(config.views)}; change train.views "
            "or the splits (data.splits, generate.conversations.splits, or the rows' own)."
        )
    if config.decoder.normalisation != "none":
        swapped = builder.find_swapped(rows.rows)
        decoder.use_statistics(measure_statistics(decoder, activations, rows.rows, config, swapped))
    validation = builder.build("validation")
    if validation is None:
        _LOG.warning("train: no row to validate on, so that the last checkpoint is kept.")
    with storage_errors(work), checkpoints.surface_full_disk(work):
        throughput = _optimise(
            decoder,
            rows,
            validation,
            work,
            config=config,
            runtime=runtime,
            distributed=distributed,
            progress=progress,
        )
        distributed.barrier()
        last = checkpoints.newest(work)
        history = _reproducible_history(checkpoints.log_history(last))
        done = checkpoints.step_of(last)
        curve = {x["step"]: x["validation"]["right"] for x in history if "validation" in x}
        best_step = _kept_step(curve, config.keep) if validation is not None else done
        with quiet_libraries():
            best = checkpoints.checkpoint_folder(work, best_step)
            decoder.net.load_adapter(str(best), decoder.net.active_adapter)
        if distributed.is_main:
            _write_outputs(decoder, history, builder.dropped, out)
        distributed.barrier()
    return TrainResult(
        steps=done,
        rows=len(rows),
        questions=_count_questions(config, rows, done),
        throughput=throughput,
        loss=_last_loss(history),
        validation=curve.get(best_step),
        untrained_validation=curve.get(0),
        best_step=best_step,
        trainable_parameters=sum(p.numel() for p in decoder.net.parameters() if p.requires_grad),
        dropped=dict(sorted(Counter(row.reason for row in builder.dropped).items())),
    )


def _optimise(
    decoder: Decoder,
    rows: RowDataset,
    validation: RowDataset | None,
    work: Path,
    *,
    config: TrainConfig,
    runtime: Runtime,
    distributed: DistributedContext,
    progress: Progress,
) -> Throughput | None:
    """Run the optimiser steps that no checkpoint in `work` has; None where all are done."""
    steps = count_optimiser_steps(config, len(rows))
    resume = _find_resume_point(work, distributed)
    if _has_ended(resume, steps, config):
        return None
    trainer = DecoderTrainer(
        decoder,
        rows,
        validation,
        config=config,
        distributed=distributed,
        args=make_training_arguments(
            config,
            work,
            steps=steps,
            distributed=distributed,
            report_to=runtime.report_to,
            validated=validation is not None,
        ),
        callbacks=_make_callbacks(config, progress),
    )
    with quiet_libraries():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer.meter.summarise()


def _main_layer(config: DecoderConfig, activations: ActivationSource) -> int:
    """Return the read layer, of several the first; all must be there.

    Raises:
        StoreError: the activations lack a layer.
    """
    if config.read_layers:
        first, *_ = [activations.only_layer(int(layer)) for layer in config.read_layers]
        return first
    return activations.only_layer(None if config.read_layer is None else int(config.read_layer))


def _create_decoder(
    inputs: StepInputs,
    config: TrainConfig,
    layer: int,
    distributed: DistributedContext,
    runtime: Runtime,
) -> Decoder:
    """Create an untrained decoder, its base sharded where the processes share it."""
    model = inputs.model

    def make(device: torch.device) -> Decoder:
        return Decoder.create(
            model,
            config=config.decoder,
            lora=config.lora,
            binding=Binding(
                read_layer=layer,
                target=model.digests(),
                model=model.ref,
                adapter=str(model.adapter) if model.adapter else None,
                template=model.template.model_dump(mode="json", exclude_defaults=True),
            ),
            dtype=config.precision,
            device=device,
            seed=config.seed,
            runtime=runtime.model_copy(update={"spread": False}),
        )

    with quiet_libraries():
        if not distributed.shards_base:
            return make(distributed.device)
        from trainers.distributed.sharding import (
            make_sharded,  # not every build of torch has it
        )

        return make_sharded(make, distributed)


def _find_resume_point(work: Path, distributed: DistributedContext) -> Path | None:
    """Return the last whole checkpoint; the main process removes damaged ones first."""
    if distributed.is_main:
        checkpoints.keep_whole(work)
    distributed.barrier()
    return checkpoints.keep_whole(work)


def _make_callbacks(config: TrainConfig, progress: Progress) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [ProgressReporter(progress), NonFiniteGuard()]
    if config.patience:
        callbacks.append(ValidationPatience(config.patience))
    return callbacks


def _write_outputs(
    decoder: Decoder, history: list[dict[str, Any]], dropped: list[Dropped], out: Path
) -> None:
    """Write the adapter, the log, and the questions that were dropped."""
    decoder.save(out)
    lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in history)
    write_bytes(out / LOG_FILE, lines.encode())
    if dropped:
        write_dropped(out / DROPPED_FILE, dropped)


def _has_ended(resume: Path | None, steps: int, config: TrainConfig) -> bool:
    """Tell whether the checkpoint `resume` is the last of the training."""
    if resume is None:
        return False
    log = checkpoints.log_history(resume)
    return checkpoints.step_of(resume) >= steps or patience_exhausted(log, config.patience)


def _reproducible_history(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the log without times and memory: what is equal in every run of the same training."""
    out: list[dict[str, Any]] = []
    for line in log:
        if "loss" in line:
            out.append({k: line[k] for k in ("step", "loss", "learning_rate", "grad_norm")})
        elif VALIDATION in line:
            out.append({"step": line["step"], "validation": {"right": line[VALIDATION]}})
    return out


def _kept_step(curve: Mapping[int, float], keep: Literal["best", "last"]) -> int:
    """Find the step of the checkpoint that is handed on.

    It is the last, or that of the lowest validation loss, the earliest of equals.

    Args:
        curve: validation `right` by step; at step 0 there is no checkpoint.
        keep: which of the two.
    """
    steps = [step for step in curve if step > 0]
    return steps[-1] if keep == "last" else min(steps, key=lambda step: (curve[step], step))


def _last_loss(history: list[dict[str, Any]]) -> float:
    """Average the loss of the last tenth of the steps."""
    losses: list[float] = [line["loss"] for line in history if "loss" in line]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _count_questions(config: TrainConfig, rows: RowDataset, steps: int) -> int:
    """Count the questions of `steps` steps, a repeated one each time."""
    per_epoch = sum(len(row.questions) for row in rows.rows)
    return round(steps * per_epoch / steps_per_epoch(config, len(rows)))
