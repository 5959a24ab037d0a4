"""The memory that a step takes, from the model's config alone: its passes run on fake tensors.

torch's fake tensors have shapes and sizes and compute nothing. The real passes (capture, the
decoder's loss, its gradient, the optimiser) run on them with two and with three blocks, what is
alive at once is counted, and the rest of the blocks is added, since each takes the same.

What a device's allocator and libraries take besides (a CUDA context, fragments) is not in it.

Shapes: B rows, S tokens of a row.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from activation_store.model_files.files import ModelFiles
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.capture import Capture
from activation_store.target.first_blocks import cut_behind, cut_config
from activation_store.target.load import DTYPES, blocks
from decoder.adapters import multiply_in_base_format
from decoder.config import LoraSettings
from decoder.forward import compute_answer_losses
from decoder.injection import Injection
from decoder.model import add_lora
from decoder.packed import PackedBatch

_FEW, _MORE = 2, 3
"""Blocks of the two models that are run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A pass whose memory is wanted.

    Attributes:
        tokens: of the pass, padding counted.
        row_tokens: of one row; an activation prefix and its questions.
        answer_tokens: of a row, that carry loss.
        placeholders: of a row, at which activations enter.
    """

    tokens: int
    row_tokens: int = 256
    answer_tokens: int = 64
    placeholders: int = 64

    @property
    def rows(self) -> int:
        """Rows of the pass."""
        return max(1, self.tokens // self.row_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """Bytes that a step takes on its device.

    Attributes:
        weights: of the model, in its number format.
        adapter: of the LoRA matrices.
        optimiser: of their gradients and AdamW's two moments.
        passes: the most that is alive besides, within a pass.
    """

    weights: int
    adapter: int = 0
    optimiser: int = 0
    passes: int = 0

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return self.weights + self.adapter + self.optimiser + self.passes


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made while it is open and are still alive.

    Attributes:
        peak: most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, torch.Tensor):
                self._add(value.untyped_storage())
        return made

    def ignore(self, values: list[torch.Tensor]) -> None:
        """Leave tensors out that were there before."""
        self._known |= {value.untyped_storage()._cdata for value in values}

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryModel:
    """A model of which only the config is known.

    Attributes:
        config: transformers' config.
        dtype: number format of its weights.
    """

    config: Any
    dtype: str

    @classmethod
    def read(cls, model: ModelFiles, dtype: str) -> MemoryModel:
        """Read the config of a model's folder."""
        with quiet_libraries():
            config = AutoConfig.from_pretrained(
                model.folder, trust_remote_code=model.trust_remote_code
            )
        return cls(config=config, dtype=dtype)

    @property
    def n_blocks(self) -> int:
        """Blocks of the model."""
        return int(self.config.get_text_config().num_hidden_layers)

    def build(self, n_blocks: int) -> nn.Module:
        """Build it with some blocks, on the device meta."""
        config: Any = type(self.config).from_dict(self.config.to_dict())
        cut_config(config.get_text_config(), n_blocks)
        with quiet_libraries(), torch.device("meta"):
            net: Any = AutoModelForCausalLM.from_config(config, dtype=DTYPES[self.dtype])  # type: ignore[no-untyped-call]
        found: nn.Module = net.eval().requires_grad_(False)
        return found

    def count_parameters(self) -> int:
        """Count its parameters, tied ones once."""
        return self._over_blocks(
            self.n_blocks, lambda n: sum(p.numel() for p in self.build(n).parameters())
        )

    def measure_dump(self, layers: int, blocks_loaded: int, tokens: int, row: int) -> StepMemory:
        """Measure a dump.

        Args:
            layers: read layers.
            blocks_loaded: blocks that are needed; some models are loaded whole.
            tokens: of a pass.
            row: tokens of a conversation.
        """

        def run(net: nn.Module) -> None:
            sequences = [np.zeros(row, np.int32)] * max(1, tokens // row)
            with torch.no_grad():
                Capture(net, range(min(layers, _FEW)))(sequences)

        cut = cut_behind(self.config, blocks_loaded)
        loaded = self.n_blocks if cut is None else blocks_loaded
        # what a block makes is let go before the next: more of them take no more
        passes = self._peak(self.build(_MORE), run)
        return StepMemory(weights=self._weights(loaded), passes=passes)

    def measure_loss(self, work: Workload) -> StepMemory:
        """Measure the answer losses of an evaluation."""

        def run(net: nn.Module) -> None:
            with torch.no_grad():
                _loss(net, net, work)

        passes = self._peak(self.build(_MORE), run)
        return StepMemory(weights=self._weights(self.n_blocks), passes=passes)

    def measure_training(
        self, work: Workload, lora: LoraSettings, *, checkpointing: bool = False
    ) -> StepMemory:
        """Measure a step of training.

        Args:
            work: one micro-batch.
            lora: the adapter.
            checkpointing: whether blocks are computed again in the backward pass.
        """

        def run(adapted: Any) -> None:
            base = adapted.get_base_model()
            if checkpointing:
                # a fake tensor has no random state
                again = {"use_reentrant": False, "preserve_rng_state": False}
                base.activation_checkpointing_enable(again)
            torch.autograd.backward(_loss(adapted, base, work).sum())

        def adapted(n: int) -> Any:
            return adapt(self.build(n), lora).train()

        def trained(n: int) -> int:
            return sum(p.numel() for p in adapted(n).parameters() if p.requires_grad)

        numbers = self._over_blocks(self.n_blocks, trained)
        return StepMemory(
            weights=self._weights(self.n_blocks),
            adapter=4 * numbers,
            optimiser=2 * 4 * numbers,  # AdamW's moments; gradients are among what passes make
            passes=self._over_blocks(self.n_blocks, lambda n: self._peak(adapted(n), run)),
        )

    def _weights(self, n_blocks: int) -> int:
        return self._over_blocks(
            n_blocks,
            lambda n: sum(p.numel() * p.element_size() for p in self.build(n).parameters()),
        )

    def _peak(self, net: nn.Module, run: Callable[[Any], None]) -> int:
        """Return the most bytes that are alive while `run` runs, weights left out."""
        with FakeTensorMode(allow_non_fake_inputs=True):
            _put_on_cpu(net)
            alive = LiveBytes()
            with alive:
                alive.ignore([*net.parameters(), *net.buffers()])
                run(net)
            return alive.peak

    def _over_blocks(self, n_blocks: int, of: Callable[[int], int]) -> int:
        """Return what `of` gives for `n_blocks` blocks, from what it gives for few."""
        few, more = of(_FEW), of(_MORE)
        return few + (n_blocks - _FEW) * (more - few)


def _put_on_cpu(net: nn.Module) -> None:
    """Replace weights of the device meta by those of the CPU, of the mode that is open."""
    made: dict[int, torch.Tensor] = {}
    for module in net.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None and id(value) not in made:
                    empty = torch.empty(value.shape, dtype=value.dtype)
                    own = isinstance(value, nn.Parameter)
                    made[id(value)] = nn.Parameter(empty, value.requires_grad) if own else empty
                if value is not None:
                    held[name] = made[id(value)]  # type: ignore[assignment]


def adapt(net: nn.Module, lora: LoraSettings) -> Any:
    """Put a LoRA adapter of these settings on a network, as a decoder has it."""
    adapted = add_lora(net, lora)
    multiply_in_base_format(adapted)
    return adapted


def _loss(net: nn.Module, base: nn.Module, work: Workload) -> torch.Tensor:
    """Compute the answer losses of packed rows of one question each, activations injected."""
    rows, size, answers = work.rows, work.row_tokens, work.answer_tokens
    ids = torch.zeros(rows, size, dtype=torch.long)
    parts = (torch.arange(size) >= size // 2).long().expand(rows, size)
    starts = torch.arange(rows)[:, None] * size
    batch: PackedBatch = {
        "packed_ids": ids,
        "packed_positions": torch.arange(size).expand(rows, size),
        "parts": parts,
        "places": (starts + torch.arange(work.placeholders)).flatten(),
        "vectors": torch.zeros(rows * work.placeholders, _width(base)),
        "vector_layers": torch.zeros(rows * work.placeholders, dtype=torch.long),
        "row_of": torch.arange(rows),
        "predicting": (starts + torch.arange(size - answers - 1, size - 1)).flatten(),
        "targets": torch.zeros(rows * answers, dtype=torch.long),
        "weights": torch.ones(rows * answers) / answers,
        "question_of": torch.arange(rows)[:, None].expand(rows, answers).flatten(),
    }
    return compute_answer_losses(net, Injection(blocks(base)[0]), batch)


def _width(net: Any) -> int:
    return int(net.config.get_text_config().hidden_size)
