"""The same rows as others keep them: a safetensors file a sample, and SAELens' cached activations.

SAELens is no part of this project: where `pip install sae-lens` has been run, its own code writes
its folder and reads it. It knows no bfloat16 and no sequences of other lengths, so it gets the same
number of rows as float16 in contexts of 128. Its reader takes batches in order; a context at
random is read through the `datasets` table that it opens, a tenth of them, times ten.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Array2D, Features, List, Value, disable_progress_bars
from safetensors import safe_open
from safetensors.torch import save_file
from store_bench import emptied, in_turns, uncached
from torch import nn

from activation_store.layout.index import SequenceSpan
from activation_store.read.reader import ActivationStore

CONTEXT = 128
AT_ONCE = 32
"""Contexts of a batch of SAELens' reader."""
HOOK = "blocks.14.hook_resid_post"
Ways = dict[str, tuple[Callable[[], object], float]]
"""What is timed, and how many times of it make what was asked for."""


def rivals(
    store: ActivationStore, layer: int, chosen: Sequence[SequenceSpan], folder: Path, rounds: int
) -> dict[str, tuple[float, float]]:
    """Seconds, warm and cold, in which others read as many rows as `chosen`."""
    files = _safetensors(store, layer, emptied(folder / "safetensors"))

    def one_file_each() -> None:
        for s in chosen:
            with safe_open(files[s.example_id], framework="pt") as file:
                file.get_tensor("rows").clone()

    ways: Ways = {"one safetensors file a sample": (one_file_each, 1.0)}
    found = _timed(ways, lambda: uncached(files.values()), rounds)
    if importlib.util.find_spec("sae_lens") is None:
        note = "SAELens is not installed here (pip install sae-lens); it is left out."
        print(note, file=sys.stderr)  # a table is being printed
        return found
    n = sum(s.n_tokens for s in chosen)
    return found | _sae_lens(store, layer, emptied(folder / "sae_lens"), n, rounds)


def _timed(ways: Ways, forget: Callable[[], object], rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of each way, warm, and behind `forget`."""
    return {
        name: (
            scale * in_turns({name: way}, rounds).seconds(name),
            scale * in_turns({name: way}, rounds, before=forget).seconds(name),
        )
        for name, (way, scale) in ways.items()
    }


def _safetensors(store: ActivationStore, layer: int, folder: Path) -> dict[str, Path]:
    files = {}
    for example in store.index:
        files[example] = folder / f"{example}.safetensors"
        rows = torch.from_numpy(np.array(store.bits(example, layer)))
        save_file({"rows": rows}, files[example])
    return files


def _sae_lens(
    store: ActivationStore, layer: int, folder: Path, n: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Seconds in which `n` rows are read from SAELens' folder, by itself and by `datasets`."""
    from sae_lens.training.activations_store import ActivationsStore

    n_contexts = _written(store, layer, folder)
    contexts = random.Random(0).sample(range(n_contexts), max(1, n // CONTEXT // 10))
    batches = n_contexts // AT_ONCE
    opened: list[Any] = []

    def reader() -> Any:
        if not opened:
            opened.append(
                ActivationsStore(
                    model=nn.Identity(),  # it asks nothing of a model whose activations are there
                    dataset=None,
                    streaming=False,
                    hook_name=HOOK,
                    hook_head_index=None,
                    context_size=CONTEXT,
                    d_in=store.d_model,
                    n_batches_in_buffer=8,
                    total_training_tokens=n,
                    store_batch_size_prompts=AT_ONCE,
                    train_batch_size_tokens=AT_ONCE * CONTEXT,
                    prepend_bos=False,
                    normalize_activations="none",
                    device=torch.device("cpu"),
                    dtype="float16",
                    cached_activations_path=str(folder),
                )
            )
        return opened[0]

    def in_order() -> None:
        reader().current_row_idx = 0
        for _ in range(batches):
            reader().get_raw_llm_batch()

    def at_random() -> None:
        rows = reader().cached_activation_dataset
        for i in contexts:
            rows[i][HOOK]

    def forget() -> None:
        opened.clear()
        uncached(folder.glob("*.arrow"))

    name = f"SAELens {importlib.metadata.version('sae-lens')}"
    return _timed(
        {
            f"{name}, its own batches in order": (in_order, n / (batches * AT_ONCE * CONTEXT)),
            f"{name}, contexts at random": (at_random, n / (len(contexts) * CONTEXT)),
        },
        forget,
        rounds,
    )


def _written(store: ActivationStore, layer: int, folder: Path) -> int:
    """Leave a layer as SAELens' runner does, by the runner's own code, and count the contexts."""
    from sae_lens.cache_activations_runner import CacheActivationsRunner

    values = np.concatenate([store.read(e, layer) for e in store.index]).astype(np.float16)
    size = AT_ONCE * CONTEXT
    # its constructor loads a model to compute what is there already
    runner: Any = CacheActivationsRunner.__new__(CacheActivationsRunner)
    runner.cfg = SimpleNamespace(hook_name=HOOK, n_seq_in_buffer=AT_ONCE, d_in=store.d_model)
    runner.context_size = CONTEXT
    runner.features = Features(
        {
            HOOK: Array2D((CONTEXT, store.d_model), "float16"),
            "token_ids": List(Value("int32"), length=CONTEXT),
        }
    )
    disable_progress_bars()
    shards = folder / ".tmp_shards"
    for i in range(len(values) // size):
        rows = torch.from_numpy(values[i * size : (i + 1) * size])
        shard = runner._create_shard((rows, torch.zeros(size, dtype=torch.int32)))
        shard.save_to_disk(str(shards / f"shard_{i:05d}"), num_shards=1)
    return len(runner._consolidate_shards(shards, folder, copy_files=False))
