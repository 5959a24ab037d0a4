"""A layer of a store as a torch dataset of batches, for training on activations alone.

```python
stream = ActivationStream(folder, layer=14, config=StreamConfig(batch_tokens=8192), rank=0, ranks=1)
for batch in stream:                      # or DataLoader(stream, batch_size=None, num_workers=4)
    step(batch.padded(), batch.lengths)
    save(epoch=stream.epoch, cursor=batch.cursor)
stream.start(epoch=..., cursor=...)       # goes on behind that batch, also with other ranks
```

Shapes: B sequences of a batch, N tokens of all of them, T of the longest, D d_model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import IterableDataset, get_worker_info

from activation_store.read.order import batch_order
from activation_store.read.reader import ActivationStore
from core.config import Config

_TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class StreamConfig(Config):
    """What a pass over a store consists of, and in which order."""

    seed: int = 0
    """Seed of the order."""
    batch_tokens: int = Field(default=4096, ge=1)
    """Most tokens of a batch, padded to its longest sequence."""
    window_shards: int = Field(default=4, ge=1)
    """Shards whose sequences are mixed: more mix better, and more files are open at once."""
    even: bool = False
    """Whether the last batches of an epoch are left out where not every rank would get one."""


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """Sequences without padding, one after the other.

    Attributes:
        activations: [N, D] in the store's number format.
        tokens: [N] int32.
        lengths: [B] int64.
        example_ids: of the B sequences.
        cursor: where to go on once every rank is through with its batch of this turn.
    """

    activations: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    example_ids: tuple[str, ...]
    cursor: int

    def padded(self) -> torch.Tensor:
        """Activations [B, T, D], zeros behind each sequence's end."""
        parts = self.activations.split(self.lengths.tolist())
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)

    def pin_memory(self) -> SpanBatch:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        return self._map(lambda values: values.pin_memory())

    def to(self, device: torch.device | str) -> SpanBatch:
        """The same on `device`; the copy from pinned memory does not wait."""
        return self._map(lambda values: values.to(device, non_blocking=True))

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SpanBatch:
        return replace(
            self,
            activations=change(self.activations),
            tokens=change(self.tokens),
            lengths=change(self.lengths),
        )


class ActivationStream(IterableDataset[SpanBatch]):
    """Batches of a layer; random access to single examples is `store.read`.

    The order is a function of (seed, epoch, cursor). Of the batches behind the cursor, rank r takes
    every `ranks`-th, and a DataLoader's workers share a rank's so that they come in the same order
    for any number of workers. Without workers, `threads` threads read ahead.

    Args:
        root: the store's folder.
        layer: block whose output is read; the store's only one where it is None.
        examples: ids of the sequences to take; all where it is None.
        threads: batches that are read ahead at once, in this process.
        pin: whether batches come in pinned memory; None where CUDA is there. (A DataLoader with
            workers pins by itself: give it `pin_memory`.)

    Raises:
        StoreError: there is no such store or layer.
        DataError: an example is not in the store.
    """

    def __init__(
        self,
        root: Path,
        *,
        layer: int | None = None,
        config: StreamConfig = StreamConfig(),  # noqa: B008 - frozen
        examples: Sequence[str] | None = None,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 2,
        pin: bool | None = None,
    ) -> None:
        self.store = ActivationStore(root)
        self.layer = self.store.only_layer(layer)
        self.config = config
        self.epoch = 0
        self.cursor = 0
        self._chosen = None if examples is None else self._numbers(examples)
        self._rank, self._ranks = rank, ranks
        self._threads = threads
        self._pin = torch.cuda.is_available() if pin is None else pin

    def start(self, *, epoch: int, cursor: int = 0) -> None:
        """Go on at `cursor` of `epoch` with the next iteration."""
        self.epoch, self.cursor = epoch, cursor

    def __iter__(self) -> Iterator[SpanBatch]:
        order = batch_order(
            self.store.index,
            seed=self.config.seed,
            epoch=self.epoch,
            batch_tokens=self.config.batch_tokens,
            window_shards=self.config.window_shards,
            chosen=self._chosen,
        )
        last = len(order)
        if self.config.even:
            last -= (last - self.cursor) % self._ranks
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        # turn t gives rank r the batch cursor + t * ranks + r; worker w has every workers-th turn
        turns = range(self.cursor + self._rank, last, self._ranks)[number::workers]
        if worker is not None:
            return (self._read(order[at], at) for at in turns)
        return self._ahead(order, turns)

    def _ahead(self, order: list[np.ndarray], turns: range) -> Iterator[SpanBatch]:
        """The batches in order, while those that follow are read."""
        with ThreadPoolExecutor(self._threads) as pool:
            waiting: deque[Future[SpanBatch]] = deque()
            for at in turns:
                waiting.append(pool.submit(self._given, order[at], at))
                if len(waiting) > self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _given(self, numbers: np.ndarray, at: int) -> SpanBatch:
        """A batch as it is given out, pinned by the thread that reads it."""
        batch = self._read(numbers, at)
        return batch.pin_memory() if self._pin else batch

    def _read(self, numbers: np.ndarray, at: int) -> SpanBatch:
        store = self.store
        names = tuple(store.index.at(int(n)).example_id for n in numbers)
        bits = np.concatenate([store.bits(name, self.layer) for name in names])
        turn = (at - self.cursor) // self._ranks
        return SpanBatch(
            activations=torch.from_numpy(bits).view(_TORCH[store.plan["dtype"]]),
            tokens=torch.from_numpy(np.concatenate([store.tokens(name) for name in names])),
            lengths=torch.from_numpy(store.index.n_tokens[numbers]),
            example_ids=names,
            cursor=self.cursor + (turn + 1) * self._ranks,
        )

    def _numbers(self, examples: Sequence[str]) -> np.ndarray:
        for example in examples:
            self.store.place(example)  # names the one that is not there
        return np.array([self.store.index.number(example) for example in examples])
