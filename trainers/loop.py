"""transformers.Trainer with our batches, our loss and our evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from core.errors import ConfigError
from core.progress import Progress
from decoder.batch import Batch, to_device
from decoder.forward import answer_losses
from decoder.model import Decoder
from decoder.packed import PackedBatch
from trainers import checkpoints
from trainers.config import TrainConfig
from trainers.dataset import Passes, PassSampler, RowDataset
from trainers.distributed import Team
from trainers.throughput import Meter

VALIDATION = "eval_right"


class DecoderTrainer(Trainer):
    """Trains a decoder's adapter; validation `right` is the mean over rows of their answer loss."""

    control: Any  # transformers gives it no type

    def __init__(
        self,
        decoder: Decoder,
        rows: RowDataset,
        validation: RowDataset | None,
        *,
        team: Team,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=decoder.net,
            train_dataset=rows,
            eval_dataset=validation,
            data_collator=rows.collate_passes,
            **kwargs,
        )
        self._decoder = decoder
        self._rows = rows
        self._validation = validation
        self._team = team
        self._asked = 1
        self._idle = False
        self.meter = Meter(decoder.device, processes=team.count)
        # our mean loss knows nothing of the other batches that are accumulated
        self.loss_is_scaled_for_ga = False
        self.remove_callback(PrinterCallback)
        self.add_callback(_FirstLook(self))
        self.add_callback(self.meter)

    def training_step(
        self, model: Any, inputs: Passes, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward of a batch, pass by pass; returns the batch's loss."""
        parts = inputs["passes"]
        self._asked = self._team.total(sum(len(part["row_of"]) for part in parts))
        step = super().training_step
        with self.accelerator.no_sync(model=model):
            self._idle = True
            for _ in range(self._behind(len(parts))):
                step(model, parts[-1], num_items_in_batch)
            self._idle = False
            early = [step(model, part, num_items_in_batch) for part in parts[:-1]]
        return sum(early, start=step(model, parts[-1], num_items_in_batch))

    def _behind(self, passes: int) -> int:
        """Passes that this process must run besides its own, for nothing: where the weights are
        shared, every pass gathers them from all processes, so that all must run as many."""
        return self._team.most(passes) - passes if self._team.shards else 0

    def compute_loss(
        self, model: Any, inputs: Batch | PackedBatch, return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """What a pass adds to the mean answer loss of its batch's questions, in nats a token.

        Of several processes each gives its part of the mean over all their questions, times their
        number: gradients and logged losses are averaged over them.
        """
        losses = answer_losses(model, self._decoder.injection, inputs)
        if self._idle:
            return losses.sum() * 0.0
        self.meter.add(inputs)
        return losses.sum() * (self._team.count / self._asked)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[tuple[int, int]]:
        # the processes take the parts of a batch by turns, so a batch is that of all of them
        batch = self.args.per_device_train_batch_size * self._team.count
        return PassSampler(self._rows, batch, seed=self.args.seed)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation `right`, logged and given to the callbacks."""
        if self._validation is None:
            return {}
        mode = self.model.training
        self.model.eval()
        found = {VALIDATION: validation_loss(self._decoder, self._validation)}
        self.model.train(mode)
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics=found
        )
        return found

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As transformers has it, with speed, memory and waiting beside the loss."""
        super().log({**logs, **(self.meter.figures() if "loss" in logs else {})}, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # where embeddings or head are adapted, peft would add the base's own weights, of which a
        # process may hold but a share
        assert output_dir is not None
        self.model.save_pretrained(output_dir, save_embedding_layers=False)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self._team.wait()  # each process writes the state of its own random numbers
        if self.args.should_save:
            checkpoints.seal(checkpoints.folder(Path(self.args.output_dir), self.state.global_step))
        self._team.wait()


@torch.no_grad()  # tensors of inference mode would stay in weights that are gathered here first
def validation_loss(decoder: Decoder, rows: RowDataset, *, batch: int = 16) -> float:
    """Answer loss: mean over a row's questions, then over rows."""
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    total = 0.0
    for start in range(0, len(order), batch):
        items = [rows[i] for i in order[start : start + batch]]
        tensors = to_device(rows.collate(items), decoder.device)
        losses = answer_losses(decoder.net, decoder.injection, tensors).cpu()
        counts = torch.bincount(tensors["row_of"].cpu())
        total += float((losses / counts[tensors["row_of"].cpu()]).sum())
    return total / len(rows)


class _FirstLook(TrainerCallback):
    """Measures the untrained decoder, where the curve begins."""

    def __init__(self, trainer: DecoderTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._trainer.evaluate()


class StopWhereNotFinite(TrainerCallback):
    """Stops a training that has diverged, before its weights are saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        for name in ("loss", "grad_norm", VALIDATION):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ConfigError(
                    f"train: {name} is {logs[name]} at step {state.global_step}; expected a finite "
                    f"number. Lower train.learning_rate (now {args.learning_rate:g})."
                )


class StopWhereNoBetter(TrainerCallback):
    """Ends a training whose validation has not fallen for `patience` measurements."""

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if no_better(state.log_history, self._patience):
            control.should_training_stop = True


def no_better(log: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Whether the last `patience` measurements of validation in a log are all above an earlier one.

    The untrained decoder's does not count as one of them.
    """
    curve = [line[VALIDATION] for line in log if VALIDATION in line and line["step"] > 0]
    if patience is None or len(curve) <= patience:
        return False
    return min(curve[-patience:]) >= min(curve[:-patience])


class Follow(TrainerCallback):
    """Tells a listener how far training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps, "steps")


def steps_of_a_pass(config: TrainConfig, rows: int) -> int:
    """Optimiser steps of one pass over `rows` rows; the last takes what is left."""
    return math.ceil(math.ceil(rows / config.rows_per_batch) / config.accumulation)


def optimiser_steps(config: TrainConfig, rows: int) -> int:
    """Optimiser steps of a training over `rows` rows."""
    if config.max_steps is not None:
        return config.max_steps
    return max(1, round(config.epochs * steps_of_a_pass(config, rows)))


def arguments(
    config: TrainConfig, work: Path, *, steps: int, team: Team, report_to: tuple[str, ...]
) -> TrainingArguments:
    """`config` in transformers' words.

    Raises:
        ConfigError: a process alone is on a GPU that transformers does not train on, or several
            cannot share a batch.
    """
    device = team.device
    if team.count == 1 and device.type == "cuda" and (device.index or 0) > 0:
        raise ConfigError(
            f"runtime.device: transformers trains on the first GPU it sees, got {device}. "
            f"Set CUDA_VISIBLE_DEVICES={device.index} and runtime.device to cuda."
        )
    every = -(-steps // config.evaluations)
    made = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=team.share(config.rows_per_batch),
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
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would log another number in place of NaN
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        # every pass uses the whole adapter; DDP would look for what is left out, and say so
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    if made.n_gpu > 1:
        # nn.DataParallel would cut our batches along the wrong axis; more GPUs are for torchrun
        made._n_gpu = 1
    return made
