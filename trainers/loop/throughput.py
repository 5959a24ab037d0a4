"""Throughput of a training: questions and tokens a second, waiting for data, peak memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

from decoder.batch import LossBatch

_KIB = 1 if sys.platform == "darwin" else 1024
"""Bytes of a unit of ru_maxrss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Questions and tokens a second of a training, waiting for data, peak memory.

    Attributes:
        questions_per_second: questions trained on, a repeated one counted each time.
        tokens_per_second: tokens that went through the decoder, padding included.
        data_wait: share of the time in which no step ran because its batch was not ready.
        peak_memory_gb: of the GPU, else of the process; 10^9 bytes.
    """

    questions_per_second: float
    tokens_per_second: float
    data_wait: float
    peak_memory_gb: float

    def to_json(self) -> dict[str, float]:
        """Return the values by name."""
        return asdict(self)


class ThroughputMeter(TrainerCallback):
    """Counts from the first step of this process on; validation and checkpoints are left out.

    On a GPU the times are those at which work was enqueued, not finished: over many steps both are
    the same, and measuring adds no synchronisation.
    """

    def __init__(self, device: torch.device, *, processes: int = 1) -> None:
        self._device = device
        self._processes = processes
        self._busy = self._waited = 0.0
        self._questions = self._tokens = 0
        self._mark = time.perf_counter()

    def add(self, batch: LossBatch) -> None:
        """Count a micro-batch that is about to run, padding included.

        Of several processes each counts its own micro-batch for all of theirs, which are of like
        size.
        """
        own = len(batch["row_of"]) - len(batch.get("contrasted", ()))
        self._questions += own * self._processes
        ids = ("packed_ids",) if "packed_ids" in batch else ("prefix_ids", "turn_ids")
        tokens = sum(batch[name].numel() for name in ids)  # type: ignore[literal-required]
        self._tokens += tokens * self._processes

    def summarise(self) -> Throughput:
        """Return the throughput so far."""
        seconds = self._busy + self._waited
        if self._device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(self._device))
        else:
            peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * _KIB
        return Throughput(
            questions_per_second=round(self._questions / seconds, 2) if seconds else 0.0,
            tokens_per_second=round(self._tokens / seconds, 1) if seconds else 0.0,
            data_wait=round(self._waited / seconds, 4) if seconds else 0.0,
            peak_memory_gb=round(peak / 1e9, 3),
        )

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._mark = now - self._mark, now
        return lap

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Leave the time up to now out: that before training, of a validation, of a checkpoint."""
        self._lap()

    on_evaluate = on_save = on_train_begin

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Count the time since the last step as waiting for data."""
        self._waited += self._lap()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Count the time since the step's beginning as busy."""
        self._busy += self._lap()
