"""Training rows as a torch dataset, and the order in which an epoch takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypedDict

import torch
from torch.utils.data import Dataset, Sampler

from decoder.batch import LossBatch
from decoder.packed import make_loss_batch
from decoder.question_prompt import DecoderPrompt, Turn
from decoder.reading import Reading
from trainers.data.contrast import Contrast
from trainers.data.decoder_inputs import DecoderInputs
from trainers.data.rows import Row, tokenize_questions


class Sample(NamedTuple):
    """A row as the decoder gets it.

    Attributes:
        reading: the row's activations.
        turns: its questions with their answers as tokens.
        swapped: the activations that it is contrasted with; None for no contrast.
        told_apart: for each question, whether those would change its answer.
    """

    reading: Reading
    turns: list[Turn]
    swapped: Reading | None = None
    told_apart: tuple[bool, ...] = ()


class MicroBatches(TypedDict):
    """A batch split into micro-batches, which run one after the other."""

    micro_batches: list[LossBatch]


class RowDataset(Dataset[Sample]):
    """Rows with their activations (read when they are taken) and their tokens (made once)."""

    def __init__(
        self,
        rows: Sequence[Row],
        inputs: DecoderInputs,
        prompt: DecoderPrompt,
        *,
        packed: bool = False,
        micro_batch_tokens: int = 1 << 62,
        contrasts: Mapping[str, Contrast] | None = None,
    ) -> None:
        """Tokenize the rows' questions.

        Args:
            rows: what is trained or validated on.
            inputs: what the decoder is given of each row.
            prompt: makes tokens.
            packed: whether a row is one packed sequence (decoder/packed.py).
            micro_batch_tokens: most tokens of a micro-batch.
            contrasts: by example id, what rows are contrasted with.

        Raises:
            DataError: a question cannot be written in the model's chat template.
        """
        self.rows = rows
        self.inputs = inputs
        self.prompt = prompt
        self._packed = packed
        self.micro_batch_tokens = micro_batch_tokens
        self._contrasts = contrasts or {}
        self._turns = [tokenize_questions(prompt, row) for row in rows]
        self.lengths = self.lengths_in_epoch(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int | tuple[int, int]) -> Sample:
        """Return a row by its index, as epoch 0 has it; by index and epoch, as that epoch does."""
        index, epoch = at if isinstance(at, tuple) else (at, 0)
        row = self.rows[index]
        own = Sample(self.inputs.read(row, epoch), self._turns[index])
        contrast = self._contrasts.get(row.example_id)
        if contrast is None:
            return own
        # at the row's own positions, so that their shift tells nothing
        swapped = replace(
            self.inputs.read_swapped(row, contrast.swapped, epoch),
            first_position=own.reading.first_position,
        )
        return own._replace(swapped=swapped, told_apart=contrast.told_apart)

    def lengths_in_epoch(self, epoch: int) -> list[int]:
        """Return the tokens that each row sends through the decoder in an epoch."""
        return [
            self.inputs.length(row, epoch) + sum(len(t.ids) for t in turns)
            for row, turns in zip(self.rows, self._turns, strict=True)
        ]

    def collate(self, samples: Sequence[Sample]) -> LossBatch:
        """Stack samples into one batch, in the layout that the model allows.

        Questions given swapped activations come last.
        """
        readings, turns = [s.reading for s in samples], [list(s.turns) for s in samples]
        contrasted: list[int] = []
        first = 0  # question of the batch
        for sample in samples:
            if sample.swapped is not None:
                apart = [i for i, told in enumerate(sample.told_apart) if told]
                readings.append(sample.swapped)
                turns.append([sample.turns[i] for i in apart])
                contrasted += [first + i for i in apart]
            first += len(sample.turns)
        batch = make_loss_batch(self.prompt, readings, turns, packed=self._packed)
        if contrasted:
            batch["contrasted"] = torch.tensor(contrasted)
        return batch

    def collate_micro_batches(self, samples: Sequence[Sample]) -> MicroBatches:
        """Split the samples of a batch into micro-batches and stack each."""
        lengths = [_count_tokens(sample) for sample in samples]
        parts = split_into_micro_batches(lengths, self.micro_batch_tokens)
        return {"micro_batches": [self.collate([samples[i] for i in part]) for part in parts]}


def _count_tokens(sample: Sample) -> int:
    """Count the tokens that a sample sends through the decoder, its contrast included."""
    own = sample.reading.size + sum(len(turn.ids) for turn in sample.turns)
    if sample.swapped is None:
        return own
    apart = zip(sample.turns, sample.told_apart, strict=True)
    return own + sample.swapped.size + sum(len(turn.ids) for turn, told in apart if told)


def split_into_micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split a batch into micro-batches of rows of like length.

    Args:
        lengths: tokens of each row.
        max_tokens: most tokens of a micro-batch, padding counted; a row alone may have more.

    Returns:
        Indices of the rows of each micro-batch.
    """
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # the longest of a micro-batch is its first, and the others are padded to it
        if out and lengths[out[-1][0]] * (len(out[-1]) + 1) <= max_tokens:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def order_in_buckets(
    lengths: Sequence[int], batch: int, *, seed: int, epoch: int = 0, window: int = 64
) -> list[int]:
    """Draw a random order of rows in which each batch holds rows of like length.

    Rows are shuffled, cut into windows, sorted by length within a window, and the batches are
    shuffled. The order is a function of (seed, epoch), so that a resumed run continues where it
    stopped.

    Args:
        lengths: tokens of each row.
        batch: rows of a batch.
        seed: of the order.
        epoch: counted from 0.
        window: batches of a window.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), window * batch):
        own = sorted(order[start : start + window * batch], key=lengths.__getitem__)
        batches += [own[i : i + batch] for i in range(0, len(own), batch)]
    # a short batch stays the last one: the loader would cut all batches behind it differently
    full = [own for own in batches if len(own) == batch]
    short = [own for own in batches if len(own) < batch]
    shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
    return [i for own in shuffled + short for i in own]


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows in the order of `order_in_buckets`, each with the number of its epoch.

    What an epoch gives of a row, and so the row's length, is a function of both: it is the same in
    every process, and after a kill.
    """

    def __init__(self, rows: RowDataset, batch: int, *, seed: int) -> None:
        self._rows = rows
        self._batch = batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, whose number seeds the order of the rows."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        lengths = self._rows.lengths_in_epoch(self._epoch)
        order = order_in_buckets(lengths, self._batch, seed=self._seed, epoch=self._epoch)
        return ((index, self._epoch) for index in order)
