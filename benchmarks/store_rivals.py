"""The same rows as others keep them: a safetensors file a sample, and SAELens' cached activations.

SAELens' CacheActivationsRunner saves a `datasets` folder with a column Array2D [context, d_model]
and one of token ids, and its store reads rows of that. There is no bfloat16 and no sequence of
another length, so it gets the same number of rows as float16 in contexts of 128, and random access
is to whole contexts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, List, Value
from safetensors import safe_open
from safetensors.torch import save_file
from store_bench import emptied, measured, uncached

from activation_store.plan import Placed
from activation_store.reader import ActivationStore
from activation_store.views import as_numpy

CONTEXT = 128
HOOK = "hook_resid_post"


def rivals(
    store: ActivationStore, layer: int, chosen: Sequence[Placed], folder: Path, rounds: int
) -> dict[str, tuple[float, float]]:
    """Seconds, warm and cold, in which others read as many rows as `chosen`, in random order."""
    files = _safetensors(store, layer, emptied(folder / "safetensors"))
    cached = [_sae_lens(store, layer, folder / "sae_lens")]
    n = sum(s.n_tokens for s in chosen)
    draw = random.Random(0)
    contexts = draw.sample(range(len(cached[0])), max(1, n // CONTEXT // 10))

    def one_file_each() -> None:
        for s in chosen:
            with safe_open(files[s.example_id], framework="pt") as file:
                file.get_tensor("rows").clone()

    def sae_lens() -> None:
        if not cached:
            cached.append(_opened(folder / "sae_lens"))
        for i in contexts:
            cached[0][i][HOOK]

    def forgotten() -> None:
        cached.clear()
        uncached([*files.values(), *(folder / "sae_lens").glob("*.arrow")])

    ways: dict[str, tuple] = {
        "one safetensors file a sample": (one_file_each, 1.0),
        "a datasets folder as SAELens writes it": (sae_lens, n / (len(contexts) * CONTEXT)),
    }
    return {
        name: (
            scale * measured({name: way}, rounds)[name],
            scale * measured({name: way}, rounds, before=forgotten)[name],
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


def _sae_lens(store: ActivationStore, layer: int, folder: Path) -> Dataset:
    values = as_numpy(store, layer).values.astype(np.float16)
    shape = (CONTEXT, store.d_model)
    n = len(values) // CONTEXT
    columns = {HOOK: values[: n * CONTEXT].reshape(n, *shape), "token_ids": [[0] * CONTEXT] * n}
    features = Features({HOOK: Array2D(shape, "float16"), "token_ids": List(Value("int32"))})

    def rows() -> Iterable[dict]:
        for i in range(n):
            yield {name: column[i] for name, column in columns.items()}

    Dataset.from_generator(
        rows, features=features, cache_dir=str(folder.parent / "cache")
    ).save_to_disk(str(folder))
    return _opened(folder)


def _opened(folder: Path) -> Dataset:
    return Dataset.load_from_disk(str(folder)).with_format("torch")
