"""Dump, training and answers on one card against the bare forward pass, and memory by the plan.

Random weights of an 8B shape with the embedded model's tokenizer: nothing is downloaded but the
98 MB of `latentqa setup embedded`. Under ten minutes on a card of 80 GB; a smaller shape is for
trying it.

    python scripts/record_benchmark.py gpu                   writes docs/benchmarks.md
    python benchmarks/gpu.py --shape 2x64 --tokens 2000      on any machine
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from store_bench import planned, sequences
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from activation_store.layout.plan_files import write_plan
from activation_store.model_files.files import resolve_model
from activation_store.target.capture import Capture
from activation_store.target.load import DTYPES, load_tokenizer, pick_device
from activation_store.target.number_format import resolve_dtype
from activation_store.write.capture_shards import capture_shards
from core.runtime import Runtime
from core.text.wording import size
from decoder.asking import generate_answers
from decoder.batch import to_device
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.question_prompt import Turn
from decoder.reading import Reading
from trainers.memory import MemoryModel, Workload, adapt

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bfloat16 operations a second by the name of a card."""
QUESTIONS, PREFIX, ANSWER = 8, 128, 24
"""Questions of a row, its activations, and tokens of an answer."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table of each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="32x4096", help="blocks x width")
    parser.add_argument("--tokens", type=int, default=400_000, help="tokens of the dump")
    parser.add_argument("--batch-tokens", type=int, default=16_384)
    parser.add_argument("--rows", type=int, default=16, help="rows of a training step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tokenizer", default="embedded", help="model whose tokenizer is used")
    words = parser.parse_args(arguments)
    runtime = Runtime()
    device, dtype = pick_device(runtime), resolve_dtype("auto", runtime)
    tokenizer = load_tokenizer(resolve_model(words.tokenizer))
    config = shape(words.shape, len(tokenizer))
    with torch.device(device):
        torch.set_default_dtype(DTYPES[dtype])
        net = LlamaForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    most = next((flops for card, flops in PEAK_FLOPS.items() if card in name), None)
    print(f"{name}, {dtype}, {sum(p.numel() for p in net.parameters()):,} parameters\n")
    read = config.num_hidden_layers // 2 - 1
    measure_dump(net, tokenizer, read, words, most)
    decoder = Decoder(
        adapt(net, LoraSettings()),
        tokenizer,
        DecoderConfig(normalisation="none"),
        Binding(read_layer=read, target={}, model="random"),
    )
    measure_training(decoder, config, dtype, words, most)
    measure_answers(decoder)


def shape(text: str, vocabulary: int) -> LlamaConfig:
    """Return a Llama config of "BLOCKSxWIDTH", Llama-3-8B's for 32x4096 but for its vocabulary."""
    n_blocks, width = map(int, text.split("x"))
    heads = max(1, width // 128)
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=n_blocks,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=8192,
    )


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of `run`, what it has launched included."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def share(flops: float, seconds: float, most: float | None) -> str:
    """Return operations a second as a share of what the card can do."""
    return "–" if most is None else f"{flops / seconds / most:.0%}".replace("%", " %")


def measure_dump(
    net: nn.Module, tokenizer: object, read: int, words: argparse.Namespace, most: float | None
) -> None:
    """Compare a dump with its forward passes alone."""
    rows = sequences(tokenizer, words.tokens, 512)
    width = net.config.hidden_size
    plan = planned(rows, (read,), width, batch_tokens=words.batch_tokens)
    capture = Capture(net, plan.layers)
    batches = [
        [rows[s.example_id].ids for s in batch]
        for shard in range(plan.n_shards)
        for batch in plan.batches(shard)
    ]

    def bare() -> None:
        for batch in batches:
            capture(batch)

    def dump() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_plan(Path(folder), plan, rows)
            capture_shards(plan, range(plan.n_shards), out=Path(folder), tokens=rows, net=net)

    capture(batches[0])  # kernels are chosen
    alone, whole = timed(bare), timed(dump)
    blocks = net.get_decoder().layers[: read + 1]
    flops = 2 * sum(p.numel() for block in blocks for p in block.parameters()) * plan.tokens
    print("| dump | tokens/s | MFU | of bare |\n|---|---|---|---|")
    print(f"| bare forward | {plan.tokens / alone:,.0f} | {share(flops, alone, most)} | 1.00 |")
    print(
        f"| into a committed store | {plan.tokens / whole:,.0f} | {share(flops, whole, most)} "
        f"| {alone / whole:.2f} |"
    )
    print(f"\nthe host is waited for {max(0.0, 1 - alone / whole):.0%} of the time\n")


def _rows(decoder: Decoder, n: int) -> tuple[list[Reading], list[list[Turn]]]:
    width = decoder.net.get_base_model().config.hidden_size
    draw = np.random.default_rng(0)
    vectors = [draw.normal(size=(PREFIX, width)).astype(np.float32) for _ in range(n)]
    turn = decoder.prompt.turn("What would the assistant say?", "It depends. " * (ANSWER // 4))
    return [Reading(v, PREFIX, 0) for v in vectors], [[turn] * QUESTIONS] * n


def measure_training(
    decoder: Decoder, config: LlamaConfig, dtype: str, words: argparse.Namespace, most: float | None
) -> None:
    """Time training steps, and compare their peak memory with the plan's figure."""
    net = decoder.net.train()
    weights = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-4)
    readings, turns = _rows(decoder, words.rows)
    batch = make_loss_batch(decoder.prompt, readings, turns, packed=True)
    assert "packed_ids" in batch
    rows, row_tokens = batch["packed_ids"].shape

    def step() -> None:
        moved = to_device(batch, decoder.device)
        loss = compute_answer_losses(net, decoder.injection, moved).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: [step() for _ in range(words.steps)]) / words.steps
    tokens = rows * row_tokens
    base = sum(p.numel() for p in net.parameters() if not p.requires_grad)
    flops = 4 * (base - config.vocab_size * config.hidden_size) * tokens
    print("| training | |\n|---|---|")
    print(f"| questions/s, {QUESTIONS} a row | {rows * QUESTIONS / seconds:,.1f} |")
    print(f"| tokens/s | {tokens / seconds:,.0f} |")
    print(f"| MFU | {share(flops, seconds, most)} |")
    answers = batch["targets"].numel() // rows
    work = Workload(
        tokens=tokens, row_tokens=row_tokens, answer_tokens=answers, placeholders=PREFIX
    )
    plan = MemoryModel(config=config, dtype=dtype).measure_training(work, LoraSettings())
    print(f"| peak memory by the plan | {size(plan.peak)} |")
    if torch.cuda.is_available():
        print(f"| peak memory, measured | {size(torch.cuda.max_memory_allocated())} |")
    print()
    net.eval()


def measure_answers(decoder: Decoder) -> None:
    """Time answers: all questions of some rows at once."""
    readings, _ = _rows(decoder, 8)
    asked = [(reading, f"Question {i}?") for reading in readings for i in range(QUESTIONS)]

    def write() -> None:
        given, questions = zip(*asked, strict=True)
        generate_answers(decoder, given, questions, max_tokens=ANSWER)

    write()
    print(f"answers/s, {len(asked)} at once of {ANSWER} tokens: {len(asked) / timed(write):,.1f}")


if __name__ == "__main__":
    main()
