"""Slices of an evaluation side by side: each process loads the decoders, on a GPU of its own.

A process caches what it measures, and the evaluation that follows finds all of it there: it stays
the one that puts results together, and measures what a process has not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from activation_store.layout.config import CaptureConfig
from activation_store.target.worker_devices import (
    choose_pool,
    find_model,
    plain_model,
    worker_device,
)
from core.errors import why_failed
from core.processes.task_pool import InProcess, TaskPool, worker_number
from core.progress import silent
from core.runtime import Runtime
from decoder.sources.step_inputs import StepInputs
from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, open_evaluation
from evaluators.measure.partial_results import PartialResultCache
from evaluators.slice_evaluator import SliceEvaluator

_LOG = logging.getLogger(__name__)


def measure_ahead(
    inputs: StepInputs,
    decoders: TrainedDecoders,
    work: Path,
    *,
    config: EvaluateConfig,
    runtime: Runtime,
    foreign: bool,
    pool: TaskPool | None = None,
) -> None:
    """Measure the slices of an evaluation on all GPUs of the machine, as far as these get.

    A call that fails is told in the log; the evaluation then meets the same error or does the work.

    Args:
        inputs: tables, store and target.
        decoders: the decoder and the trained baselines.
        work: keeps results as they are measured.
        config: what is measured.
        runtime: device and threads.
        foreign: whether the store may be another target's.
        pool: runs the calls where there are not several GPUs; None for no calls. Workers that
            `runtime` asks for may each be a point of a sweep already.
    """
    pool = choose_pool(runtime, pool or InProcess())
    shares = min(pool.workers, len(config.splits) * len(config.views))
    if shares == 1:
        return
    common = {
        "inputs": _plain_inputs(inputs),
        "decoders": {
            "decoder": str(decoders.decoder.resolve()),
            "baselines": {name: str(at.resolve()) for name, at in decoders.baselines.items()},
        },
        "work": str(work.resolve()),
        "config": config.model_dump(mode="json"),
        "runtime": runtime.model_dump(mode="json"),
        "foreign": foreign,
    }
    calls = [{**common, "share": share, "shares": shares} for share in range(shares)]
    labels = [f"slices {share + 1} of {shares}" for share in range(shares)]
    for outcome in pool.run(measure_share, calls, labels):
        if outcome.error is not None:
            _LOG.warning("evaluate: %s: %s", labels[outcome.number], why_failed(outcome.error))


def measure_share(
    *,
    inputs: Mapping[str, Any],
    decoders: Mapping[str, Any],
    work: str,
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    foreign: bool,
    share: int,
    shares: int,
) -> int:
    """Measure every slice whose number leaves `share` when divided by `shares`, and cache it.

    Returns:
        The number of slices.

    Raises:
        LatentQAError: as `evaluate`.
    """
    settings = Runtime.model_validate(runtime)
    device = worker_device(settings, worker_number())
    settings = settings.model_copy(update={"device": str(device)})
    judged = EvaluateConfig.model_validate(config)
    trained = TrainedDecoders(
        decoder=Path(decoders["decoder"]),
        baselines={name: Path(at) for name, at in decoders["baselines"].items()},
    )
    opened = open_evaluation(_find_inputs(inputs), trained, judged, settings, foreign=foreign)
    own = opened.slices[share::shares]
    evaluator = SliceEvaluator(
        opened.sources, judged, PartialResultCache(Path(work)), slices=len(own), progress=silent
    )
    for eval_slice in own:
        evaluator.evaluate(eval_slice)
    return len(own)


def _plain_inputs(inputs: StepInputs) -> dict[str, Any]:
    return {
        "conversations": str(inputs.conversations.resolve()),
        "questions": str(inputs.questions.resolve()),
        "store": None if inputs.store is None else str(inputs.store.resolve()),
        "model": plain_model(inputs.model),
        "capture": None if inputs.capture is None else inputs.capture.model_dump(mode="json"),
    }


def _find_inputs(plain: Mapping[str, Any]) -> StepInputs:
    capture = plain["capture"]
    return StepInputs(
        conversations=Path(plain["conversations"]),
        questions=Path(plain["questions"]),
        store=None if plain["store"] is None else Path(plain["store"]),
        model=find_model(plain["model"]),
        capture=None if capture is None else CaptureConfig.model_validate(capture),
    )
