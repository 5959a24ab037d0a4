"""transformers.Trainer with our batches, our loss and our evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from decoder.batch import Batch, to_device
from decoder.forward import answer_losses
from decoder.model import Decoder
from generators.progress import Progress
from trainers import checkpoints
from trainers.config import TrainConfig
from trainers.data import LengthBuckets, RowDataset

VALIDATION = "eval_right"


class DecoderTrainer(Trainer):
    """Trains a decoder's adapter; validation `right` is the mean over rows of their answer loss."""

    def __init__(
        self, decoder: Decoder, rows: RowDataset, validation: RowDataset | None, **kwargs: Any
    ) -> None:
        super().__init__(
            model=decoder.net,
            train_dataset=rows,
            eval_dataset=validation,
            data_collator=rows.collate,
            **kwargs,
        )
        self._decoder = decoder
        self._rows = rows
        self._validation = validation
        # our mean loss knows nothing of the other batches that are accumulated
        self.loss_is_scaled_for_ga = False
        self.remove_callback(PrinterCallback)
        self.add_callback(_FirstLook(self))

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """Mean answer loss of the batch's questions, in nats a token."""
        return answer_losses(model, self._decoder.write_block, inputs).mean()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return LengthBuckets(
            self._rows.lengths, self.args.per_device_train_batch_size, seed=self.args.seed
        )

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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            checkpoints.seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")


@torch.inference_mode()
def validation_loss(decoder: Decoder, rows: RowDataset, *, batch: int = 16) -> float:
    """Answer loss: mean over a row's questions, then over rows."""
    order = sorted(range(len(rows)), key=rows.lengths.__getitem__)
    total = 0.0
    for start in range(0, len(order), batch):
        items = [rows[i] for i in order[start : start + batch]]
        tensors = to_device(rows.collate(items), decoder.device)
        losses = answer_losses(decoder.net, decoder.write_block, tensors).cpu()
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


class Follow(TrainerCallback):
    """Tells a listener how far training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress(state.global_step, state.max_steps, "steps")


def arguments(
    config: TrainConfig, work: Path, *, steps: int, device: torch.device, report_to: tuple[str, ...]
) -> TrainingArguments:
    """`config` in transformers' words."""
    every = -(-steps // config.evaluations)
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=config.rows_per_batch,
        gradient_accumulation_steps=config.accumulation,
        max_steps=steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * steps),
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        load_best_model_at_end=True,
        metric_for_best_model=VALIDATION,
        greater_is_better=False,
        logging_steps=1,
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
    )
