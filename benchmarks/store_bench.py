"""What the benchmarks of the store share: their rows, plans, stores, and how they are timed."""

from __future__ import annotations

import gc
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from activation_store.layout.arrays import PHYSICAL, layer_array
from activation_store.layout.config import CaptureConfig
from activation_store.layout.plan import Plan, plan_layout
from activation_store.layout.plan_files import write_plan
from activation_store.layout.root_record import write_root
from activation_store.model_files.files import resolve_model
from activation_store.target.load import (
    Shape,
    load_model,
    load_tokenizer,
    model_shape,
    pick_device,
    shape_of,
)
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from activation_store.write.capture_shards import capture_shards
from core.runtime import Runtime

PROJECT = Path(__file__).parents[1]


def target(ref: str, made: str | None) -> tuple[str, nn.Module, Any, Shape]:
    """Return a name, the model in float32, its tokenizer and its shape.

    Args:
        ref: a model's reference.
        made: "BLOCKSxD_MODEL" of a random model that takes the place of `ref`, with its tokenizer.
    """
    model = resolve_model(ref)
    tokenizer, device = load_tokenizer(model), pick_device(Runtime())
    if made is None:
        net = load_model(model, dtype="float32", device=device)
        return ref, net, tokenizer, model_shape(model)
    n_blocks, width = map(int, made.split("x"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=n_blocks,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=1024,
    )
    net = LlamaForCausalLM(config).to(device).eval().requires_grad_(False)
    return f"a random model of {made}", net, tokenizer, shape_of(config, made)


def sequences(tokenizer: Any, tokens: int, longest: int) -> TokenTable:
    """Return this project's own documentation and source.

    Cut to 32 to 512 tokens, `tokens` in all.
    """
    pages = [*sorted(PROJECT.glob("docs/*.md")), *sorted(PROJECT.glob("activation_store/*/*.py"))]
    text = "\n".join(page.read_text() for page in pages)
    ids = np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int32)
    draw = np.random.default_rng(0)
    out: dict[str, Tokens] = {}
    while tokens > 0:
        n = int(min(tokens, longest, draw.integers(32, 513)))
        start = int(draw.integers(0, len(ids) - n))
        out[f"{len(out):06d}"] = Tokens(ids[start : start + n], np.zeros(n, np.uint8), 0)
        tokens -= n
    return TokenTable(out.items())


def lengths(tokens: int) -> TokenTable:
    """Sequences of 32 to 512 tokens that say nothing, about `tokens` in all."""
    draw = np.random.default_rng(0)
    out: dict[str, Tokens] = {}
    while tokens > 512:
        n = int(draw.integers(32, 513))
        out[f"{len(out):06d}"] = Tokens(np.zeros(n, np.int32), np.zeros(n, np.uint8), 0)
        tokens -= n
    return TokenTable(out.items())


def planned(rows: TokenTable, layers: tuple[int, ...], d_model: int, **changes: Any) -> Plan:
    """Make a plan for these rows, bound to no model."""
    config = CaptureConfig(layers=layers, compute_dtype="float32", **changes)
    return plan_layout(rows, config=config, layers=layers, d_model=d_model, target={})


def captured(root: Path, plan: Plan, rows: TokenTable, net: nn.Module) -> None:
    """Return the store of `plan` in the empty folder `root`."""
    write_plan(root, plan, rows)
    capture_shards(plan, range(plan.n_shards), out=root, tokens=rows, net=net)
    write_root(root)


def made_content(plan: Plan, seed: int) -> dict[str, np.ndarray]:
    """Make up the activations of a shard, none too large for float16, which rivals need."""
    draw = np.random.default_rng(seed)
    wide = (plan.shard_rows, plan.d_model)
    return {
        layer_array(layer): draw.integers(0, 0x4700, wide).astype(PHYSICAL[plan.dtype])
        for layer in plan.layers
    }


def emptied(folder: Path) -> Path:
    """Make a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Times:
    """Seconds of several ways to do one thing, taken in turns, [rounds] by name."""

    def __init__(self, found: dict[str, list[float]]) -> None:
        self._found = found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def seconds(self, name: str) -> float:
        """Return the median of one way."""
        return statistics.median(self._found[name])

    def ratio(self, name: str, of: str) -> float:
        """How many times as fast as `of`: the median of the rounds' own ratios, as a machine that
        others use too has slow minutes, which then fall on both.
        """
        both = zip(self._found[of], self._found[name], strict=False)
        return statistics.median(other / own for other, own in both)


def in_turns(
    ways: dict[str, Callable[[], object]],
    rounds: int,
    *,
    before: Callable[[], object] = int,
    fewer: Mapping[str, int] = {},
) -> Times:
    """Time each way once a round; `before` runs before each and is not counted.

    The order is drawn anew for each round: what ran before leaves memory and disk in another state,
    and in a fixed order it would be the same way before each.

    Args:
        fewer: rounds of those that take long.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    draw = random.Random(0)
    for number in range(rounds):
        for name, way in draw.sample(list(ways.items()), len(ways)):
            if number < fewer.get(name, rounds):
                before()
                start = time.perf_counter()
                way()
                found[name].append(time.perf_counter() - start)
    return Times(found)


def uncached(files: Iterable[Path]) -> None:
    """Let go of the page cache of `files`. Pages that are mapped stay, so nobody may have them
    mapped, and the caller closes them first.
    """
    gc.collect()
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # what is not on the disk yet would stay too
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def touched(size: int) -> None:
    """Use so many bytes of memory once. A virtual machine gives back what was free for seconds, and
    getting it again costs several times what writing to it does, whoever happens to come first.
    """
    np.ones(size, np.uint8)


def recycled(path: Path, size: int) -> None:
    """Write and let go of so many bytes of page cache, for the same reason: files that are written
    next find pages which the host need not give first.
    """
    piece = bytes(8 << 20)
    with open(path, "wb") as file:
        for _ in range(-(-size // len(piece))):
            file.write(piece)
    os.truncate(path, 0)
