"""Forward and backward of the decoder: packed rows against a shared prefix against plain rows.

The same rows, questions and model in one run; medians over batches and repeats. Questions per
second relative to one question a row (each with a prefix of its own), and how much of what runs
through the model is padding.

    python benchmarks/decoder_layouts.py --root ROOT --run latentqa_eval
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import cast

import torch

from activation_store.model_files.files import resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target.load import pick_device
from core.runtime import Runtime
from decoder.batch import Batch, make_batch
from decoder.forward import compute_answer_losses
from decoder.model import Binding, Decoder
from decoder.packed import PackedBatch, make_packed_batch
from decoder.visible_tokens import ReadLayers
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from trainers.config import TrainConfig
from trainers.data.dataset import LengthBuckets, RowDataset
from trainers.data.decoder_inputs import make_activation_inputs
from trainers.data.rows import load_rows, select


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--run", default="latentqa_eval")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=2)
    words = parser.parse_args()
    found = Refs(ArtifactRoot(words.root)).resolve_set(words.run)
    store = ActivationStore(found["dump"].data)
    config = TrainConfig()
    layer = store.only_layer(None)
    decoder = Decoder.create(
        resolve_model(found["train"].record.get("locations", {}).get("model", "embedded")),
        config=config.decoder,
        lora=config.lora,
        binding=Binding(read_layer=layer, target=store.plan["target"], model="embedded"),
        dtype="float32",
        device=pick_device(Runtime()),
        seed=0,
    )
    source = "complete" if "complete" in found else "conversations"
    every = load_rows(found[source].data, found["questions"].data, store)
    rows = select(every, split="train", views=config.views, most=200, seed=0)
    inputs = make_activation_inputs(
        store, layers=lambda example, epoch: ReadLayers((layer,)), masking=True
    )
    data = RowDataset(rows, inputs, decoder.prompt)
    order = list(LengthBuckets(data.lengths, words.rows, seed=0))
    seconds: dict[str, list[float]] = {}
    padding: dict[str, list[float]] = {}
    questions = 0
    for k in range(words.batches):
        items = [data[i] for i in order[k * words.rows : (k + 1) * words.rows]]
        readings, turns = [r for r, _ in items], [t for _, t in items]
        questions += sum(len(own) for own in turns)
        alone = [r for r, own in zip(readings, turns, strict=True) for _ in own]
        layouts: dict[str, Batch | PackedBatch] = {
            "one question a row": make_batch(
                decoder.prompt, alone, [[t] for x in turns for t in x]
            ),
            "shared prefix": make_batch(decoder.prompt, readings, turns),
            "packed rows": make_packed_batch(decoder.prompt, readings, turns),
        }
        for name, batch in layouts.items():
            padding.setdefault(name, []).append(_padding(batch))
            runs = [_step_seconds(decoder, batch) for _ in range(words.repeats + 1)]
            seconds.setdefault(name, []).append(statistics.median(runs[1:]))
    base = statistics.median(seconds["one question a row"])
    print(f"{words.batches} batches of {words.rows} rows, {questions} questions, float32, ")
    print(f"{torch.get_num_threads()} threads\n")
    print("| layout | relative speed | seconds a batch (median) | padding |")
    print("|---|---|---|---|")
    for name, own in seconds.items():
        middle = statistics.median(own)
        share = statistics.mean(padding[name])
        print(f"| {name} | {base / middle:.2f} | {middle:.2f} | {share:.1%} |")


def _step_seconds(decoder: Decoder, batch: Batch | PackedBatch) -> float:
    """Time forward and backward of a batch, in seconds."""
    decoder.net.zero_grad()
    start = time.perf_counter()
    loss = compute_answer_losses(decoder.net, decoder.injection, batch).mean()
    torch.autograd.backward(loss)
    return time.perf_counter() - start


def _padding(batch: Batch | PackedBatch) -> float:
    if "packed_ids" in batch:
        return float((cast(PackedBatch, batch)["parts"] < 0).float().mean())
    shared = cast(Batch, batch)
    width = shared["prefix_ids"].shape[1]
    used = shared["prefix_mask"].sum() + shared["turn_mask"][:, width:].sum()
    return 1 - float(used) / (shared["prefix_ids"].numel() + shared["turn_ids"].numel())


if __name__ == "__main__":
    main()
