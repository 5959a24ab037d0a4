"""transformers.Trainer with our batches, our loss and our validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from core.errors import ConfigError
from core.progress import Progress
from decoder.batch import LossBatch, to_device
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from trainers.config import TrainConfig
from trainers.data.contrast import add_contrast
from trainers.data.dataset import EpochSampler, RowDataset, split_into_micro_batches
from trainers.distributed.processes import DistributedContext
from trainers.loop import checkpoints
from trainers.loop.throughput import ThroughputMeter

VALIDATION = "eval_right"
"""Name of validation `right` in transformers' log."""
_LOGGED_STEPS = 10
"""Steps on an accelerator whose mean loss is one line of the log."""


class DecoderTrainer(Trainer):
    """Trains a decoder's adapter; validation `right` is the mean over rows of their answer loss.

    Attributes:
        meter: counts questions, tokens and times.
    """

    control: TrainerControl
    args: TrainingArguments

    def __init__(
        self,
        decoder: Decoder,
        rows: RowDataset,
        validation: RowDataset | None,
        *,
        config: TrainConfig,
        distributed: DistributedContext,
        args: TrainingArguments,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Prepare a training.

        Args:
            decoder: what is trained.
            rows: training rows.
            validation: validation rows; None measures nothing.
            config: noise on the injected activations, and weight of the contrastive term.
            distributed: the processes that train.
            args: transformers' settings.
            callbacks: called beside our own.
        """
        super().__init__(
            model=decoder.net,
            train_dataset=rows,
            eval_dataset=validation,
            data_collator=cast(Any, rows.collate_micro_batches),  # our samples are no dicts
            args=args,
            callbacks=list(callbacks),
        )
        self._decoder = decoder
        self._config = config
        self._rows = rows
        self._validation = validation
        self._distributed = distributed
        self._batch_questions: int | torch.Tensor = 1
        self._padding_step = False
        self.meter = ThroughputMeter(decoder.device, processes=distributed.world_size)
        # our mean loss knows nothing of the other batches that are accumulated
        self.loss_is_scaled_for_ga = False
        self.remove_callback(PrinterCallback)
        self.add_callback(_InitialValidation(self))
        self.add_callback(self.meter)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Run forward and backward of each micro-batch; return the batch's loss.

        Args:
            model: the network, possibly wrapped.
            inputs: `trainers.data.dataset.MicroBatches`.
            num_items_in_batch: ignored.
        """
        parts = inputs["micro_batches"]
        questions = sum(len(part["row_of"]) - len(part.get("contrasted", ())) for part in parts)
        self._batch_questions = self._distributed.all_reduce_sum(questions)
        step = super().training_step
        with self.accelerator.no_sync(model=model):
            self._padding_step = True
            for _ in range(self._count_padding_steps(len(parts))):
                step(model, parts[-1], num_items_in_batch)
            self._padding_step = False
            early = [step(model, part, num_items_in_batch) for part in parts[:-1]]
        return sum(early, start=step(model, parts[-1], num_items_in_batch))

    def _count_padding_steps(self, micro_batches: int) -> int:
        """Count micro-batches that this process has to run for nothing, besides its own.

        Where the weights are sharded, every micro-batch gathers them from all processes, so that
        all must run equally many.
        """
        if not self._distributed.shards_base:
            return 0
        return self._distributed.all_reduce_max(micro_batches) - micro_batches

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute what a micro-batch adds to the mean answer loss of its batch's questions.

        The contrastive terms of the questions, where there are any, are in it.

        Of several processes each gives its part of the mean over all their questions, times their
        number: gradients and logged losses are averaged over them.

        Args:
            model: the network, possibly wrapped.
            inputs: a micro-batch in either layout.
            return_outputs: ignored.
            num_items_in_batch: ignored.

        Returns:
            Nats per token.
        """
        batch = cast(LossBatch, inputs)
        injection = replace(self._decoder.injection, noise=self._config.noise)
        losses = compute_answer_losses(model, injection, batch)
        if self._padding_step:
            return losses.sum() * 0.0
        self.meter.add(batch)
        total = add_contrast(losses, batch.get("contrasted"), self._config.contrastive)
        return total * (self._distributed.world_size / self._batch_questions)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[tuple[int, int]]:
        # the processes take the parts of a batch by turns, so a batch is that of all of them
        batch = self.args.per_device_train_batch_size * self._distributed.world_size
        return EpochSampler(self._rows, batch, seed=self.args.seed)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure validation `right`, log it and give it to the callbacks."""
        if self._validation is None:
            return {}
        net = self._decoder.net
        mode = net.training
        net.eval()
        found = {VALIDATION: compute_validation_loss(self._decoder, self._validation)}
        net.train(mode)
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics=found
        )
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as transformers does, with throughput beside the loss."""
        super().log(
            {**logs, **(self.meter.summarise().to_json() if "loss" in logs else {})}, start_time
        )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # where embeddings or head are adapted, peft would add the base's own weights, of which a
        # process may hold but a share
        assert output_dir is not None
        self._decoder.net.save_pretrained(output_dir, save_embedding_layers=False)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self._distributed.barrier()  # each process writes the state of its own random numbers
        if self.args.should_save:
            assert self.args.output_dir is not None
            work = Path(self.args.output_dir)
            checkpoints.seal(checkpoints.checkpoint_folder(work, self.state.global_step))
        self._distributed.barrier()


@torch.no_grad()  # tensors of inference mode would stay in weights that are gathered here first
def compute_validation_loss(decoder: Decoder, rows: RowDataset) -> float:
    """Average the answer loss over each row's questions, then over rows, in nats per token.

    Rows share a forward pass as those of a training's micro-batch do.
    """
    losses, shares = [], []
    for part in split_into_micro_batches(rows.lengths, rows.micro_batch_tokens):
        batch = rows.collate([rows[i] for i in part])
        row_of = batch["row_of"]
        shares.append(1 / torch.bincount(row_of)[row_of])
        batch = to_device(batch, decoder.device)
        losses.append(compute_answer_losses(decoder.net, decoder.injection, batch))
    # read back once, behind all batches: a device never waits for the host
    return float((torch.cat(losses).cpu() * torch.cat(shares)).sum()) / len(rows)


class _InitialValidation(TrainerCallback):
    """Measures the untrained decoder, where the curve begins."""

    def __init__(self, trainer: DecoderTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._trainer.evaluate()


class NonFiniteGuard(TrainerCallback):
    """Stops a training that has diverged, before its weights are saved."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the numbers that were just logged.

        Raises:
            ConfigError: one of them is not finite.
        """
        logs: Mapping[str, float] = kwargs["logs"]
        for name in ("loss", "grad_norm", VALIDATION):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ConfigError(
                    f"train: {name} is {logs[name]} at step {state.global_step}; expected a finite "
                    f"number. Lower train.learning_rate (now {args.learning_rate:g})."
                )


class ValidationPatience(TrainerCallback):
    """Ends a training whose validation has not fallen for `patience` measurements.

    It looks at the log alone, so that a resumed run ends where an undisturbed one does.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where patience is exhausted."""
        if patience_exhausted(state.log_history, self._patience):
            control.should_training_stop = True


def patience_exhausted(log: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Tell whether the last `patience` measurements of validation are all above an earlier one.

    The untrained decoder's does not count as one of them.

    Args:
        log: transformers' log.
        patience: None never ends.
    """
    curve: list[float] = [line[VALIDATION] for line in log if VALIDATION in line and line["step"]]
    if patience is None or len(curve) <= patience:
        return False
    return min(curve[-patience:]) >= min(curve[:-patience])


class ProgressReporter(TrainerCallback):
    """Reports finished optimiser steps to a listener."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the step."""
        self._progress(state.global_step, state.max_steps, "steps")


def steps_per_epoch(config: TrainConfig, rows: int) -> int:
    """Count the optimiser steps of one epoch over `rows` rows; the last takes what is left."""
    return math.ceil(math.ceil(rows / config.rows_per_batch) / config.accumulation)


def count_optimiser_steps(config: TrainConfig, rows: int) -> int:
    """Count the optimiser steps of a training over `rows` rows."""
    if config.max_steps is not None:
        return config.max_steps
    return max(1, round(config.epochs * steps_per_epoch(config, rows)))


def make_training_arguments(
    config: TrainConfig,
    work: Path,
    *,
    steps: int,
    distributed: DistributedContext,
    report_to: tuple[str, ...],
    validated: bool = True,
) -> TrainingArguments:
    """Translate `config` into transformers' settings.

    Args:
        config: settings of the training.
        work: receives checkpoints.
        steps: optimiser steps in all.
        distributed: the processes that train.
        report_to: trackers (`tensorboard`, `wandb`).
        validated: whether there are rows to validate on.

    Raises:
        ConfigError: a process alone is on a GPU that transformers does not train on, or several
            cannot share a batch.
    """
    device = distributed.device
    if distributed.world_size == 1 and device.type == "cuda" and (device.index or 0) > 0:
        raise ConfigError(
            f"runtime.device: transformers trains on the first GPU it sees, got {device}. "
            f"Set CUDA_VISIBLE_DEVICES={device.index} and runtime.device to cuda."
        )
    interval = -(-steps // config.evaluations)
    cpu = device.type == "cpu"
    made = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=distributed.rows_per_process(config.rows_per_batch),
        gradient_accumulation_steps=config.accumulation,
        max_steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * steps),
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        # transformers evaluates and saves at the last step too
        eval_strategy="steps" if validated else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        # a loss that is logged is waited for, which costs a CPU nothing
        logging_steps=1 if cpu else min(_LOGGED_STEPS, interval),
        logging_nan_inf_filter=False,  # it would log another number in place of NaN
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=cpu,
        # every forward pass uses the whole adapter; DDP would look for unused parts, with a warning
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},
    )
    if made.n_gpu > 1:
        # nn.DataParallel would cut our batches along the wrong axis; more GPUs are for torchrun
        made._n_gpu = 1
    return made
