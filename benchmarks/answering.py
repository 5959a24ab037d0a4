"""Answers per second: a cached prefix (keys and values kept) against recomputing the sequence.

A prefix of 256 activations, 8 questions, 20 tokens an answer, greedy; an untrained decoder, whose
answers are as long as a trained one's at most. Both ways write the same tokens.

    python benchmarks/answering.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from decoder_bench import untrained_decoder

from decoder.asking import generate_answers
from decoder.model import Decoder
from decoder.reading import Reading

QUESTIONS = [
    f"What would the assistant say about {topic}?"
    for topic in ("the sea", "money", "music", "work", "the weather", "food", "travel", "history")
]


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prefix", type=int, default=256, help="activations")
    parser.add_argument("--tokens", type=int, default=20, help="longest answer")
    parser.add_argument("--recomputed", type=int, default=2, help="questions that are recomputed")
    words = parser.parse_args()
    decoder = untrained_decoder(words.model)
    width = decoder.net.get_base_model().config.hidden_size
    vectors = np.random.default_rng(0).normal(size=(words.prefix, width)).astype(np.float32)
    reading = Reading(vectors, words.prefix, 0)
    generate_answers(decoder, [reading], QUESTIONS[:1], max_tokens=2)  # threads are warm
    start = time.perf_counter()
    given = [reading] * len(QUESTIONS)
    found = generate_answers(decoder, given, QUESTIONS, max_tokens=words.tokens)
    ours = len(found) / (time.perf_counter() - start)
    start = time.perf_counter()
    plain = [recomputed(decoder, reading, q, words.tokens) for q in QUESTIONS[: words.recomputed]]
    theirs = len(plain) / (time.perf_counter() - start)
    same = sum(a.text == b for a, b in zip(found, plain, strict=False))
    print(f"{len(QUESTIONS)} questions, {words.prefix} activations, {words.tokens} tokens, ")
    print(f"float32, {torch.get_num_threads()} threads\n")
    print("| way | answers a second | relative |")
    print("|---|---|---|")
    print(f"| recomputing the sequence for each token | {theirs:.3f} | 1.00 |")
    print(f"| latentqa | {ours:.3f} | {ours / theirs:.2f} |")
    print(f"\n{same} of {len(plain)} answers are the same text")


@torch.inference_mode()
def recomputed(decoder: Decoder, reading: Reading, question: str, tokens: int) -> str:
    """One greedy answer, the whole sequence run anew for each of its tokens."""
    prompt, device = decoder.prompt, decoder.device
    prefix, asked = prompt.prefix(reading), prompt.turn(question, None)
    ids = [*prefix.ids.tolist(), *asked.ids.tolist()]
    start = len(ids)
    places = torch.from_numpy(prefix.places).to(device)
    vectors = torch.from_numpy(reading.vectors).to(device)
    while len(ids) - start < tokens:
        with decoder.injection(places, vectors):
            logits = decoder.net(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.from_numpy(prefix.positions(0, len(ids)))[None].to(device),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
                use_cache=False,
                logits_to_keep=1,
            ).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == prompt.end_of_turn:
            ids.pop()
            break
    return str(decoder.tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


if __name__ == "__main__":
    main()
