"""Training from a store with a shared prefix, against the published code, change by change.

The published way (arXiv 2412.08686 and its code) runs the target in full at every step, has one
question a row, computes the logits of every token, and sorts batches by characters. Here each of
these is switched off in turn, all else as published, and then all together, which is latentqa.
All ways take the same rows, questions and optimiser steps; each runs in a process of its own, the
ways by turns, and the medians over rounds are printed. Five minutes each on 2 cores:

    python benchmarks/training.py --root ROOT --run latentqa_eval   # a run's rows, four views
    python benchmarks/training.py --profiles                        # 8 questions, 256 tokens
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from decoder_bench import untrained_decoder
from torch import nn
from torch.nn import functional as F

from activation_store.model_files.files import resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target.load import load_model
from core.processes.task_pool import call_apart
from core.records.tables import VIEWS
from decoder.batch import LossBatch, to_device
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import PackedBatch, make_loss_batch, make_packed_mask
from decoder.question_prompt import Turn
from decoder.reading import Reading
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from trainers.config import TrainConfig
from trainers.data.dataset import order_in_buckets, split_into_micro_batches
from trainers.data.rows import count_visible_tokens, load_rows, read_row, select, tokenize_questions

LAYER = 14


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to train.

    Attributes:
        store: activations come from a store; else the target runs, in full, once an example.
        shared: a row's prefix runs once for all its questions; else one question a row.
        answers: logits of answer tokens alone; else of all.
        tokens: batches of like token length; else sorted by characters.
        micro_batches: a batch runs in micro-batches of the default `train.micro_batch_tokens`.
    """

    store: bool = False
    shared: bool = False
    answers: bool = False
    tokens: bool = False
    micro_batches: bool = False


WAYS = {
    "published": Way(),
    "published, activations from a store": Way(store=True),
    "published, one prefix for all questions": Way(shared=True),
    "published, logits of answers alone": Way(answers=True),
    "published, batches by token length": Way(tokens=True),
    "published, batches in micro-batches": Way(micro_batches=True),
    "latentqa": Way(store=True, shared=True, answers=True, tokens=True, micro_batches=True),
}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True)
class Example:
    """A row: what the decoder reads, what the target read, and its questions."""

    reading: Reading
    ids: np.ndarray
    turns: list[Turn]


def main() -> None:
    """Measure every way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--run", default="latentqa_eval")
    parser.add_argument("--profiles", action="store_true", help="made rows: 8 questions each")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rows", type=int, help="rows of a step (8, of made ones 1)")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps that are timed (2)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a busy machine")
    words = parser.parse_args()
    words.rows = words.rows or (1 if words.profiles else 8)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(words.rounds):
        for name, own in found.items():
            own.append(call_apart(measure, {"way": WAYS[name], "words": words}))
            print(f"{name}: {own[-1]['speed']:.2f} questions a second", file=sys.stderr)
    show(found, words)


def show(found: dict[str, list[dict[str, float]]], words: argparse.Namespace) -> None:
    """Print the Markdown table."""
    middle = {
        name: {key: statistics.median(x[key] for x in own) for key in own[0]}
        for name, own in found.items()
    }
    base = middle["published"]
    what = "8 questions a row, 256 activations" if words.profiles else f"rows of {words.run}"
    print(
        f"{what}; {words.steps} steps of {words.rows} rows, {base['questions']:.0f} questions, "
        f"float32, {torch.get_num_threads()} threads, medians of {words.rounds} rounds, "
        f"{words.clock} time; padding is that of a whole epoch\n"
    )
    print("| way | questions a second | relative | peak memory | relative | padding | data wait |")
    print("|---|---|---|---|---|---|---|")
    for name, own in middle.items():
        print(
            f"| {name} | {own['speed']:.2f} | {own['speed'] / base['speed']:.2f} "
            f"| {own['memory'] / 2**20:.0f} MiB | {own['memory'] / base['memory']:.2f} "
            f"| {own['padding']:.1%} | {own['wait']:.2%} |"
        )


def measure(way: Way, words: argparse.Namespace) -> dict[str, float]:
    """Questions a second, peak memory in bytes, share of padding and of waiting for data."""
    decoder = untrained_decoder(words.model, LAYER)
    device, model = decoder.device, resolve_model(words.model)
    target = None if way.store else load_model(model, dtype="float32", device=device)
    load = made_rows(decoder) if words.profiles else run_rows(decoder, words)
    every = range(len(load.lengths))
    timed = typical(load, words.rows, words.steps)
    weights = [p for p in decoder.net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-4)
    warm = [cut(load(timed[0]))]  # memory and threads
    train_step(way, decoder, target, warm, make(way, decoder, warm))
    clock = CLOCKS[words.clock]
    seconds, waited, questions = 0.0, 0.0, 0
    for indices in order(way, load, timed, words.rows):
        start = clock()
        rows = [load(i) for i in indices]
        parts = make(way, decoder, rows)
        wait = clock() - start
        optimiser.zero_grad()
        train_step(way, decoder, target, rows, parts)
        optimiser.step()
        seconds += clock() - start
        waited += wait
        questions += sum(len(row.turns) for row in rows)
    if device.type == "cuda":
        memory = float(torch.cuda.max_memory_allocated(device))
    else:
        memory = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
    return {
        "speed": questions / seconds,
        "questions": questions,
        "memory": memory,
        "padding": padding(way, load, order(way, load, every, words.rows)),
        "wait": waited / seconds,
    }


def cut(row: Example) -> Example:
    """Cut the row to its first question."""
    return Example(row.reading, row.ids, row.turns[:1])


class Rows:
    """Rows that are read when they are taken.

    Attributes:
        prefixes: tokens of each row's prefix.
        turns: tokens of each of its turns.
        characters: what the published way sorts by.
    """

    def __init__(
        self,
        prefixes: Sequence[int],
        turns: Sequence[Sequence[int]],
        characters: Sequence[int],
        read: Callable[[int], Example],
    ) -> None:
        self.prefixes, self.turns, self.characters = prefixes, turns, characters
        self.lengths = [n + sum(own) for n, own in zip(prefixes, turns, strict=True)]
        self._read = read

    def __call__(self, index: int) -> Example:
        return self._read(index)


def run_rows(decoder: Decoder, words: argparse.Namespace) -> Rows:
    """Training rows of a finished run, all views."""
    found = Refs(ArtifactRoot(words.root)).resolve_set(words.run)
    store = ActivationStore(found["dump"].data)
    source = "complete" if "complete" in found else "conversations"
    every = load_rows(found[source].data, found["questions"].data, store)
    rows = select(every, split="train", views=VIEWS, most=None, seed=0)
    turns = [tokenize_questions(decoder.prompt, row) for row in rows]
    constant = len(decoder.prompt.prefix(Reading(None, 1, 0)).ids) - 1
    prefixes = [count_visible_tokens(store, row, masking=True) + constant for row in rows]

    def read(i: int) -> Example:
        reading = read_row(store, rows[i], LAYER, masking=True)
        return Example(reading, store.tokens(rows[i].example_id), turns[i])

    characters = [
        sum(len(m.content) for m in row.conversation.messages)
        + sum(len(q.question) + len(q.answer) for q in row.questions)
        for row in rows
    ]
    return Rows(prefixes, [[len(t.ids) for t in own] for own in turns], characters, read)


def made_rows(decoder: Decoder, rows: int = 64, prefix: int = 256, questions: int = 8) -> Rows:
    """Rows of `prefix` activations with `questions` questions of 20 to 60 tokens."""
    draw = random.Random(0)
    nouns = ["harbour", "violin", "teacher", "garden", "bridge", "captain", "window", "river"]

    def text(words: int) -> str:
        return " ".join(draw.choice(nouns) for _ in range(words))

    texts = [
        [(f"{text(8)}?", text(draw.randint(5, 30))) for _ in range(questions)] for _ in range(rows)
    ]
    asked = [[decoder.prompt.turn(*pair) for pair in own] for own in texts]
    width = decoder.net.get_base_model().config.hidden_size
    vectors = np.random.default_rng(0).normal(size=(rows, prefix, width)).astype(np.float32)
    ids = np.random.default_rng(1).integers(5, 1000, size=(rows, prefix))

    def read(i: int) -> Example:
        return Example(Reading(vectors[i], prefix, 0), ids[i], asked[i])

    whole = len(decoder.prompt.prefix(Reading(None, prefix, 0)).ids)
    characters = [sum(len(q) + len(a) for q, a in own) for own in texts]
    return Rows([whole] * rows, [[len(t.ids) for t in own] for own in asked], characters, read)


def order(way: Way, rows: Rows, chosen: Sequence[int], size: int) -> list[list[int]]:
    """Cut the chosen rows into batches."""
    if way.tokens:
        flat = order_in_buckets([rows.lengths[i] for i in chosen], size, seed=0)
        flat = [chosen[i] for i in flat]
        return [flat[i : i + size] for i in range(0, len(flat), size)]
    by_characters = sorted(chosen, key=rows.characters.__getitem__)
    batches = [by_characters[i : i + size] for i in range(0, len(by_characters), size)]
    random.Random(0).shuffle(batches)
    return batches


def typical(rows: Rows, size: int, steps: int) -> list[int]:
    """Pick the rows of `steps` batches by token length, short to long, evenly over an epoch.

    Sorted by characters, so few rows are padded less than a whole epoch is: kind to that way.
    """
    every = order(Way(tokens=True), rows, range(len(rows.lengths)), size)
    batches = [batch for batch in every if len(batch) == size]
    batches.sort(key=lambda batch: sum(rows.lengths[i] for i in batch))
    return [i for k in range(steps) for i in batches[(2 * k + 1) * len(batches) // (2 * steps)]]


def padding(way: Way, rows: Rows, batches: Sequence[Sequence[int]]) -> float:
    """Share of padding in what runs through the decoder."""
    ran = used = 0
    for batch in batches:
        sizes = [
            size
            for i in batch
            for size in (
                [rows.lengths[i]]
                if way.shared
                else [rows.prefixes[i] + turn for turn in rows.turns[i]]
            )
        ]
        ran, used = ran + max(sizes) * len(sizes), used + sum(sizes)
    return 1 - used / ran


def make(way: Way, decoder: Decoder, rows: Sequence[Example]) -> list[LossBatch]:
    """Stack the rows as tensors on the decoder's device, in micro-batches."""
    readings, turns = [row.reading for row in rows], [row.turns for row in rows]
    if not way.shared:
        readings = [r for r, own in zip(readings, turns, strict=True) for _ in own]
        turns = [[turn] for own in turns for turn in own]
    packed = decoder.can_pack or not way.answers
    lengths = [
        r.size + sum(len(t.ids) for t in own) for r, own in zip(readings, turns, strict=True)
    ]
    most = TrainConfig().micro_batch_tokens if way.micro_batches else 1 << 62
    batches = [
        make_loss_batch(
            decoder.prompt,
            [readings[i] for i in own],
            [turns[i] for i in own],
            packed=packed,
        )
        for own in split_into_micro_batches(lengths, most)
    ]
    return [to_device(batch, decoder.device) for batch in batches]


def train_step(
    way: Way,
    decoder: Decoder,
    target: nn.Module | None,
    rows: Sequence[Example],
    parts: Sequence[LossBatch],
) -> None:
    """Forward and backward."""
    if target is not None:
        run_target(
            target, [row.ids for row in rows for _ in (row.turns if not way.shared else [0])]
        )
    questions = sum(len(part["row_of"]) for part in parts)
    for part in parts:
        if way.answers:
            loss = compute_answer_losses(decoder.net, decoder.injection, part).sum()
        else:
            loss = all_logits_loss(decoder, cast(PackedBatch, part))
        torch.autograd.backward(loss / questions)


@torch.no_grad()
def run_target(target: nn.Module, ids: Sequence[np.ndarray]) -> None:
    """Run the whole target, as published; its activations are those of the readings."""
    longest = max(len(x) for x in ids)
    batch = torch.zeros(len(ids), longest, dtype=torch.long)
    for row, own in zip(batch, ids, strict=True):
        row[: len(own)] = torch.from_numpy(np.asarray(own, np.int64))
    target(batch.to(next(target.parameters()).device), use_cache=False)


def all_logits_loss(decoder: Decoder, batch: PackedBatch) -> torch.Tensor:
    """Sum of the answer losses, from the logits of every token."""
    with decoder.injection(batch.get("places"), batch.get("vectors")):
        logits_BSV = decoder.net(
            input_ids=batch["packed_ids"],
            attention_mask=make_packed_mask(batch["parts"], torch.float32),
            position_ids=batch["packed_positions"],
            use_cache=False,
        ).logits
    losses = F.cross_entropy(
        logits_BSV.float().flatten(0, 1)[batch["predicting"].flatten()],
        batch["targets"],
        reduction="none",
    )
    return (losses * batch["weights"]).sum()


if __name__ == "__main__":
    main()
