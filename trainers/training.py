"""The step `train`: a store and its questions in, a decoder out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from activation_store.layout.config import CaptureConfig
from activation_store.target.files import ModelFiles
from activation_store.target.load import use_threads
from activation_store.target.quiet import quiet_libraries
from core.errors import DataError
from core.files import storage_errors, write_bytes
from core.progress import Progress, silent
from core.runtime import Runtime
from core.table_files import DROPPED_FILE, write_dropped
from core.tables import Dropped
from decoder.live import LiveActivations, open_activations
from decoder.model import Binding, Decoder
from decoder.visible_tokens import Activations, row_reads
from trainers import checkpoints
from trainers.config import TrainConfig, Variant
from trainers.dataset import RowDataset
from trainers.decoder_inputs import given
from trainers.distributed import Team
from trainers.loop import (
    VALIDATION,
    DecoderTrainer,
    Follow,
    StopWhereNoBetter,
    StopWhereNotFinite,
    arguments,
    no_better,
    optimiser_steps,
    steps_of_a_pass,
)
from trainers.rows import askable, load_rows, select, with_questions

LOG_FILE = "log.jsonl"


def train(
    conversations: Path,
    questions: Path,
    store: Path | None,
    out: Path,
    work: Path,
    *,
    config: TrainConfig,
    model: ModelFiles,
    runtime: Runtime,
    capture: CaptureConfig | None = None,
    variant: Variant = "own",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train a decoder to answer from activations.

    Goes on from the last whole checkpoint in `work`; on a CPU in float32 the result is then, to the
    bit, that of a run never stopped. Where several processes run this (trainers/launch.py), they
    train together, and the first writes.

    Args:
        conversations, questions, store: folders that the earlier steps wrote; no store where
            activations are computed on the fly.
        out: receives the adapter, latentqa.json, log.jsonl and, where there are questions
            that the chat template cannot write, dropped.parquet with them.
        work: receives checkpoints.
        capture: where there is no store, what a dump would take.
        variant: what the decoder is given of a row; other than `own` for the trained baselines.

    Returns:
        {"steps", "questions" (trained on, repeats counted), "questions_per_second" and the other
        figures of `Meter` (of this process; 0 where nothing was left to do), "rows", "loss" (mean
        of the last tenth of the steps), "validation" (the kept checkpoint's `right`),
        "untrained_validation", "best_step", "trainable_parameters", "dropped": {reason:
        questions}}.

    Raises:
        DataError: no row to train or to validate on.
        ConfigError: the loss is no longer finite, or the device cannot be trained on.
        ModelError: the model cannot be a decoder, or not be sharded.
        StoreError: the store is another model's, or has not the layer.
        DamagedError: the store's bytes are not those committed.
        StorageError: the disk is full; the last whole checkpoint stays.
    """
    use_threads(runtime)
    team = Team.join(runtime)
    opened = open_activations(store, conversations, model=model, capture=capture, runtime=runtime)
    several = [opened.only_layer(layer) for layer in config.decoder.read_layers]
    layer = several[0] if several else opened.only_layer(config.decoder.read_layer)

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
            ),
            dtype=config.precision,
            device=device,
            seed=config.seed,
        )

    with quiet_libraries():
        if team.shards:
            from trainers.sharding import sharded  # not every build of torch has it

            decoder = sharded(make, team)
        else:
            decoder = make(team.device)
    if isinstance(opened, LiveActivations):
        opened.run_on(decoder)
    rows, validation, dropped = _datasets(
        conversations, questions, opened, decoder, layer, config, variant
    )
    steps = optimiser_steps(config, len(rows))
    with storage_errors(work), checkpoints.full_disk_shows(work):
        if team.first:
            checkpoints.latest(work)
        team.wait()
        resume = checkpoints.latest(work)
        done = checkpoints.step_of(resume) if resume else 0
        speed: dict[str, float] = {"questions_per_second": 0.0}
        ended = resume is not None and no_better(checkpoints.log_history(resume), config.patience)
        if done < steps and not ended:
            speed = _fit(
                decoder, rows, validation, config, work, runtime, steps, resume, progress, team
            )
        team.wait()
        last = checkpoints.newest(work)
        history = _history(checkpoints.log_history(last))
        best, best_step = _best(history)
        with quiet_libraries():
            decoder.net.load_adapter(
                str(checkpoints.folder(work, best_step)), decoder.net.active_adapter
            )
        if team.first:
            decoder.save(out)
            lines = "".join(json.dumps(line, sort_keys=True) + "\n" for line in history)
            write_bytes(out / LOG_FILE, lines.encode())
            if dropped:
                write_dropped(out / DROPPED_FILE, dropped)
        team.wait()
    return {
        "steps": checkpoints.step_of(last),
        "rows": len(rows),
        "questions": _questions(config, rows, checkpoints.step_of(last)),
        **speed,
        "loss": _last_loss(history),
        "validation": best,
        "untrained_validation": next(x["validation"]["right"] for x in history if x["step"] == 0),
        "best_step": best_step,
        "trainable_parameters": sum(p.numel() for p in decoder.net.parameters() if p.requires_grad),
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
    }


def _fit(
    decoder: Decoder,
    rows: RowDataset,
    validation: RowDataset,
    config: TrainConfig,
    work: Path,
    runtime: Runtime,
    steps: int,
    resume: Path | None,
    progress: Progress,
    team: Team,
) -> dict[str, float]:
    """Train up to `steps`, from the checkpoint `resume` where there is one.

    Returns:
        What the meter says.
    """
    stops = [StopWhereNoBetter(config.patience)] if config.patience else []
    trainer = DecoderTrainer(
        decoder,
        rows,
        validation,
        team=team,
        args=arguments(config, work, steps=steps, team=team, report_to=runtime.report_to),
        callbacks=[Follow(progress), StopWhereNotFinite(), *stops],
    )
    with quiet_libraries():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer.meter.figures()


def _datasets(
    conversations: Path,
    questions: Path,
    store: Activations,
    decoder: Decoder,
    layer: int,
    config: TrainConfig,
    variant: Variant,
) -> tuple[RowDataset, RowDataset, list[Dropped]]:
    every = load_rows(conversations, questions, store)
    dropped: list[Dropped] = []

    def dataset(split: str, most: int | None) -> RowDataset:
        rows = select(
            every,
            split=split,
            views=config.views,
            most=most,
            seed=config.seed,
            mixture=config.mixture,
        )
        if split == "train":
            rows = with_questions(rows, config.questions_per_row, seed=config.seed)
        rows, unwritable = askable(decoder.prompt, rows)
        dropped.extend(unwritable)
        if not rows:
            raise DataError(
                f"train: no row of split {split} in views {', '.join(config.views)}; "
                "change the splits (data.splits) or train.views."
            )
        pool = select(every, split=split, views=config.views, most=None, seed=config.seed)
        settings = config.decoder
        place: Any = {
            "layers": lambda example, a_pass: row_reads(
                settings, layer, example, seed=config.seed, a_pass=a_pass
            ),
            "masking": settings.masking,
        }
        read = given(variant, pool, store, decoder.prompt, **place, seed=config.seed)
        return RowDataset(
            rows,
            store,
            decoder.prompt,
            **place,
            packed=decoder.packs,
            given=read,
            pass_tokens=config.pass_tokens,
        )

    train, validation = (
        dataset("train", config.max_rows),
        dataset("validation", config.validation_rows),
    )
    return train, validation, dropped


def _history(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log's lines that are the same whenever and wherever they were written."""
    out: list[dict[str, Any]] = []
    for line in log:
        if "loss" in line:
            out.append({k: line[k] for k in ("step", "loss", "learning_rate", "grad_norm")})
        elif VALIDATION in line:
            out.append({"step": line["step"], "validation": {"right": line[VALIDATION]}})
    return out


def _best(history: list[dict[str, Any]]) -> tuple[float, int]:
    """Lowest validation `right` of a checkpoint, and its step; the earliest of equals."""
    curve = [(x["validation"]["right"], x["step"]) for x in history if "validation" in x]
    return min(pair for pair in curve if pair[1] > 0)


def _last_loss(history: list[dict[str, Any]]) -> float:
    losses: list[float] = [line["loss"] for line in history if "loss" in line]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _questions(config: TrainConfig, rows: RowDataset, steps: int) -> int:
    """Questions that `steps` steps are trained on, a repeated one counted each time."""
    a_pass = steps_of_a_pass(config, len(rows))
    return round(steps * sum(len(row.questions) for row in rows.rows) / a_pass)
