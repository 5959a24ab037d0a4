"""Cost of steering: tokens per second with each method, relative to plain generation.

One prompt of 32 words, 32 new tokens, greedy; an untrained decoder that reads block 14, one
question with a short answer. The gradient is taken 4 times at the prompt, or 4 times there and at
each new token; a vector averaged beforehand takes none. Every way writes as many tokens. The runs
take turns, and the median of each counts.

    python benchmarks/steering.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from decoder_bench import untrained_decoder
from store_bench import in_turns

from activation_store.target.generation import Sampling, generate_ids
from core.records.steering_control import SteeringControl, WantedAnswer
from decoder.model import Decoder
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.objective import make_objective
from decoder.steering.prompts import SteeringPrompt, tokenize_prompt
from decoder.steering.replies import Steering, steered_target
from decoder.steering.vectors import SteeringVector

CONTROL = SteeringControl(
    control="cheerful",
    description="The assistant is cheerful.",
    questions=(WantedAnswer(question="How is its mood?", answer="It is cheerful."),),
)
SAID = "Please tell me how to bake bread with seeds at home, slowly and by hand, "


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tokens a second of each way, and their ratio to plain generation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--layer", type=int, default=14, help="read layer")
    parser.add_argument("--words", type=int, default=32, help="words of the prompt")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way")
    words = parser.parse_args(arguments)
    decoder = untrained_decoder(words.model, words.layer)
    said = " ".join((SAID * words.words).split()[: words.words])
    prompt = tokenize_prompt(decoder.tokenizer, said)
    ways = {
        name: partial(write, decoder, prompt, steering, words.tokens)
        for name, steering in make_ways(decoder).items()
    }
    times = in_turns(ways, words.repeats)
    print(f"{len(prompt.ids)} tokens of prompt, {words.tokens} new ones, float32, ", end="")
    print(f"{torch.get_num_threads()} threads\n")
    print("| way | tokens a second | time, relative to plain |")
    print("|---|---|---|")
    for name in times:
        seconds = times.seconds(name)
        print(f"| {name} | {words.tokens / seconds:.1f} | {seconds / times.seconds('plain'):.2f} |")


def make_ways(decoder: Decoder) -> dict[str, Steering]:
    """Return the ways to steer by name, the plain one first."""
    objective = make_objective(decoder, [CONTROL])
    width = decoder.net.get_base_model().config.hidden_size
    vector = SteeringVector(
        layers={decoder.layers[0]: torch.full((width,), 1e-3)}, method="benchmark"
    )
    each = ActivationSteeringConfig(new_tokens="gradient")
    return {
        "plain": Steering(),
        "averaged vector": Steering(vector=vector),
        "gradient at the prompt": Steering(objective=objective),
        "gradient at each token": Steering(objective=objective, config=each),
    }


def write(decoder: Decoder, prompt: SteeringPrompt, steering: Steering, tokens: int) -> None:
    """Write exactly so many tokens, whatever the target would end its reply with."""
    with steered_target(decoder, [prompt], steering) as net:
        generate_ids(net, [prompt.ids.tolist()], frozenset(), Sampling(max_tokens=tokens))


if __name__ == "__main__":
    main()
