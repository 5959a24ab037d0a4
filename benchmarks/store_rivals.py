"""The same rows as others keep them: a safetensors file a sample, and SAELens' cached activations.

SAELens keeps contexts of one length, so it gets the same numbers cut into those, and its random
access is by context; where it is not installed (`pip install sae-lens`) it is left out with a word.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from store_bench import emptied, measured

from activation_store.plan import Placed
from activation_store.reader import ActivationStore


@dataclass(frozen=True)
class Rivals:
    """What was measured.

    Attributes:
        seconds: warm and cold, by what it is; None where it was not measured.
        notes: a line on each that needs one.
    """

    seconds: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def rivals(
    store: ActivationStore, layer: int, chosen: Sequence[Placed], folder: Path, rounds: int
) -> Rivals:
    """Seconds in which others read the rows `chosen` of a store, in that order."""
    out = Rivals()
    files = _safetensors(store, layer, emptied(folder / "safetensors"))

    def one_file_each() -> None:
        for s in chosen:
            with safe_open(files[s.example_id], framework="pt") as file:
                file.get_tensor("rows").clone()

    name = "one safetensors file a sample"
    warm = measured({name: one_file_each}, rounds)[name]
    cold = measured({name: one_file_each}, rounds, cold=files.values())[name]
    out.seconds[name] = warm, cold
    if importlib.util.find_spec("sae_lens") is None:
        out.notes.append("SAELens is not installed, and left out.")
    return out


def _safetensors(store: ActivationStore, layer: int, folder: Path) -> dict[str, Path]:
    files = {}
    for example in store.index:
        files[example] = folder / f"{example}.safetensors"
        rows = torch.from_numpy(np.array(store.bits(example, layer)))
        save_file({"rows": rows}, files[example])
    return files
