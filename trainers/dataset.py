"""Training rows as a torch dataset, and the order in which they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import torch
from torch.utils.data import Dataset, Sampler

from decoder.batch import Batch, Reading
from decoder.packed import PackedBatch, loss_batch
from decoder.prompt import DecoderPrompt, Turn
from decoder.visible_tokens import Activations
from trainers.decoder_inputs import Given, Layers, own
from trainers.rows import Row, row_turns

Item = tuple[Reading, list[Turn]]


class Passes(TypedDict):
    """A batch in parts that run one after the other."""

    passes: list[Batch | PackedBatch]


class RowDataset(Dataset[Item]):
    """Rows with their activations (read when they are taken) and their turns (made once)."""

    def __init__(
        self,
        rows: Sequence[Row],
        store: Activations,
        prompt: DecoderPrompt,
        *,
        layers: Layers,
        masking: bool,
        packed: bool = False,
        given: Given | None = None,
        pass_tokens: int = 1 << 62,
    ) -> None:
        """Rows and where their activations come from.

        Args:
            layers: which layers are read of an example.
            pass_tokens: most tokens of one of a batch's passes.
            given: what a baseline is given instead.
        """
        self.rows = rows
        self._packed = packed
        self._pass_tokens = pass_tokens
        self._given = given or own(store, layers=layers, masking=masking)
        self.prompt = prompt
        self._turns = [row_turns(prompt, row) for row in rows]
        self.lengths = self.lengths_in(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int | tuple[int, int]) -> Item:
        """A row by its number, as pass 0 gives it; by number and pass, as that pass does."""
        index, a_pass = at if isinstance(at, tuple) else (at, 0)
        return self._given.read(self.rows[index], a_pass), self._turns[index]

    def lengths_in(self, a_pass: int) -> list[int]:
        """Tokens that each row of a pass sends through the decoder: what batches are matched by."""
        return [
            self._given.length(row, a_pass) + sum(len(t.ids) for t in turns)
            for row, turns in zip(self.rows, self._turns, strict=True)
        ]

    def collate(self, items: Sequence[Item]) -> Batch | PackedBatch:
        """A batch of the items, in the layout that the model allows."""
        readings, turns = [r for r, _ in items], [t for _, t in items]
        return loss_batch(self.prompt, readings, turns, packed=self._packed)

    def collate_passes(self, items: Sequence[Item]) -> Passes:
        """The items as the passes of one batch."""
        lengths = [reading.size + sum(len(t.ids) for t in turns) for reading, turns in items]
        return {
            "passes": [
                self.collate([items[i] for i in own]) for own in passes(lengths, self._pass_tokens)
            ]
        }


def passes(lengths: Sequence[int], most: int) -> list[list[int]]:
    """A batch's rows in passes of at most `most` tokens each, those of like length together.

    A pass has at least one row, however long.
    """
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # the longest of a pass is its first, and the others are padded to it
        if out and lengths[out[-1][0]] * (len(out[-1]) + 1) <= most:
            out[-1].append(i)
        else:
            out.append([i])
    return out


class LengthBuckets(Sampler[int]):
    """A random order in which each batch holds rows of like length.

    Rows are shuffled, cut into windows of `window` batches, sorted by length within a window, and
    the batches are shuffled. The order is a function of (seed, epoch), so a resumed run goes on
    where it stopped.
    """

    def __init__(self, lengths: Sequence[int], batch: int, *, seed: int, window: int = 64) -> None:
        self._lengths = list(lengths)
        self._batch = batch
        self._seed = seed
        self._window = window * batch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of `epoch`."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        batches: list[list[int]] = []
        for start in range(0, len(order), self._window):
            own = sorted(order[start : start + self._window], key=self._lengths.__getitem__)
            batches += [own[i : i + self._batch] for i in range(0, len(own), self._batch)]
        # a short batch stays the last one: the loader would cut batches anew behind it
        full = [b for b in batches if len(b) == self._batch]
        rest = [b for b in batches if len(b) < self._batch]
        for i in torch.randperm(len(full), generator=generator).tolist():
            yield from full[i]
        for own in rest:
            yield from own


class PassSampler(Sampler[tuple[int, int]]):
    """Rows in the order of `LengthBuckets`, each with the number of the pass that it is taken in.

    What a pass gives of a row, and so its length, is a function of both: so it is the same in every
    process, and after a kill.
    """

    def __init__(self, rows: RowDataset, batch: int, *, seed: int) -> None:
        self._rows = rows
        self._batch = batch
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        lengths = self._rows.lengths_in(self._epoch)
        order = LengthBuckets(lengths, self._batch, seed=self._seed)
        order.set_epoch(self._epoch)
        for index in order:
            yield index, self._epoch
