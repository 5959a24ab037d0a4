"""A behaviour that a target was trained to have is switched through a decoder, and comes back.

A tiny target learns to reply "yes" under some system prompts and "no" under others. Its last block
attends to nothing, so that its next token follows from what the last token holds at the read layer:
there the switch has to be. Target and decoder are trained with noise on these activations, so that
the decoder reads the direction in which the replies differ and not whatever else tells them apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F

from activation_store.model_files.files import resolve_model
from activation_store.target.generation import Sampling
from core.records.steering_control import SteeringControl, WantedAnswer
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.forward import compute_answer_losses
from decoder.model import Decoder
from decoder.packed import make_loss_batch
from decoder.steering.config import ActivationSteeringConfig
from decoder.steering.objective import SteeringObjective, make_objective
from decoder.steering.prompts import SteeringPrompt, tokenize_prompt
from decoder.steering.replies import Steering, write_replies
from decoder.steering.shifts import capture_prompts, compute_shifts
from trainers.steering.adapter import STEER, remove_steering_adapter
from trainers.steering.config import WeightSteeringConfig
from trainers.steering.language_loss import compute_language_loss
from trainers.steering.weights import train_steering_adapter

READ_LAYER = 2
NOISE = 2.0
"""The most that is added to a row's activations, root mean square, as a share of their own: so much
that only the direction in which the replies differ still tells them apart."""
WORDS = ("yes", "no")
QUESTION = "W"
CONTROLS = "abcdefghijklmnopqrst"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'][0] + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>a' }}{% endif %}"
)
FAR = ActivationSteeringConfig(step_size=0.1, steps=16, norm_limit=1.5)
WRITE = Sampling(max_tokens=4)


@dataclass(frozen=True)
class Asked:
    """A prompt under a system prompt that means the word `WORDS[meaning]`."""

    prompt: SteeringPrompt
    meaning: int


@dataclass(frozen=True)
class Switch:
    """A decoder of a target with a switch; the prompts are of system prompts that it never saw."""

    decoder: Decoder
    seen: Sequence[Asked]
    unseen: Sequence[Asked]

    def objective(self, word: str) -> SteeringObjective:
        wanted = WantedAnswer(question=QUESTION, answer=word)
        control = SteeringControl(control=word, description=word, questions=(wanted,))
        return make_objective(self.decoder, [control])

    def replies(self, asked: Sequence[Asked], steering: Steering) -> list[str]:
        prompts = [own.prompt for own in asked]
        return [reply.text for reply in write_replies(self.decoder, prompts, steering, WRITE)]

    def meaning(self, word: str) -> list[Asked]:
        """Return the unseen prompts whose system prompt means this word."""
        return [own for own in self.unseen if WORDS[own.meaning] == word]


def ask(tokenizer: Any, letter: str, meaning: int, draw: Random) -> Asked:
    said = "".join(draw.choice("mnopq") for _ in range(3))
    prompt = tokenize_prompt(tokenizer, said, system="+-"[meaning] + letter)
    # the last token alone is read and steered
    return Asked(SteeringPrompt(prompt.messages, prompt.ids, len(prompt.ids) - 1), meaning)


def with_noise(vectors_BTD: torch.Tensor) -> torch.Tensor:
    """Add noise to the activations of each row, of a size of its own."""
    share = NOISE * torch.rand(len(vectors_BTD), 1, 1)
    lengths = vectors_BTD.detach().norm(dim=-1, keepdim=True) / vectors_BTD.shape[-1] ** 0.5
    noisy: torch.Tensor = vectors_BTD + share * lengths * torch.randn_like(vectors_BTD)
    return noisy


def train_target(net: Any, tokenizer: Any, asked: Sequence[Asked], draw: Random) -> None:
    """Train it to reply as its system prompt means, with noise at the read layer."""
    for block in net.model.layers[READ_LAYER + 1 :]:
        block.self_attn.o_proj.weight.data.zero_()
        block.self_attn.requires_grad_(False)
    handle = net.model.layers[READ_LAYER].register_forward_hook(
        lambda module, given, output: with_noise(output)
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    replies = [[*tokenizer(w, add_special_tokens=False)["input_ids"], end] for w in WORDS]
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    for _ in range(150):
        rows = [draw.choice(asked) for _ in range(32)]
        loss = compute_language_loss(
            net,
            [np.array([*row.prompt.ids, *replies[row.meaning]]) for row in rows],
            given=[len(row.prompt.ids) for row in rows],
        )
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.zero_grad()
    handle.remove()


def train_decoder(decoder: Decoder, asked: Sequence[Asked], draw: Random) -> None:
    """Train it to say what the system prompt means, with noise on what it reads."""
    layers = decoder.select_layers()
    captured = capture_prompts(decoder, [own.prompt for own in asked], layers.layers)
    turns = [decoder.prompt.turn(QUESTION, word) for word in WORDS]
    weights = [weight for weight in decoder.net.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=120)
    for _ in range(120):
        rows = draw.sample(range(len(asked)), 16)
        batch = make_loss_batch(
            decoder.prompt,
            [
                asked[i].prompt.reading(layers, [with_noise(v[None])[0] for v in captured[i]])
                for i in rows
            ],
            [[turns[asked[i].meaning]] for i in rows],
            packed=decoder.can_pack,
        )
        loss = compute_answer_losses(decoder.net, decoder.injection, batch).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    decoder.net.requires_grad_(False)


@pytest.fixture(scope="module")
def switch() -> Switch:
    torch.set_num_threads(1)
    tokenizer, draw = tiny.tokenizer(TEMPLATE), Random(0)
    letters = {False: CONTROLS[:12], True: CONTROLS[12:]}
    seen, unseen = (
        [
            ask(tokenizer, letter, meaning, draw)
            for letter in letters[held]
            for meaning in (0, 1)
            for _ in range(1 if held else 6)
        ]
        for held in (False, True)
    )
    torch.manual_seed(0)
    net = tiny.model(0)
    train_target(net, tokenizer, [*seen, *unseen], draw)
    folder = Path(tempfile.mkdtemp(prefix="switch-"))
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = resolve_model(str(folder))
    decoder = Decoder.create(
        files,
        config=DecoderConfig(normalisation="none", preamble="I"),
        lora=LoraSettings(rank=8),
        binding=Binding(read_layer=READ_LAYER, target=files.digests(), model=files.ref),
        dtype="float32",
        device=torch.device("cpu"),
        seed=0,
    )
    train_decoder(decoder, seen, draw)
    return Switch(decoder, seen, unseen)


def other(word: str) -> str:
    return WORDS[1 - WORDS.index(word)]


def test_unsteered_it_replies_as_its_system_prompt_means(switch: Switch) -> None:
    plain = switch.replies(switch.unseen, Steering())
    assert plain == [WORDS[own.meaning] for own in switch.unseen]


@pytest.mark.parametrize("word", WORDS)
def test_steering_activations_flips_it_and_leaves_no_trace(switch: Switch, word: str) -> None:
    asked = switch.meaning(other(word))
    before = logits(switch)
    steering = Steering(objective=switch.objective(word), config=FAR)
    assert switch.replies(asked, steering) == [word] * len(asked)
    assert torch.equal(logits(switch), before)


@pytest.mark.parametrize("word", WORDS)
def test_steering_weights_flips_it_and_leaves_no_trace(switch: Switch, word: str) -> None:
    asked = switch.meaning(other(word))
    before = logits(switch)
    config = WeightSteeringConfig(
        lora=LoraSettings(rank=4, alpha=16),
        learning_rate=1e-3,
        steps=20,
        evaluate_every=5,
        reply_tokens=0,
    )
    try:
        train_steering_adapter(
            switch.decoder,
            [own.prompt for own in switch.seen[::5]],
            [own.prompt for own in switch.seen[1::11]],
            switch.objective(word),
            config,
        )
        assert switch.replies(asked, Steering(adapter=STEER)) == [word] * len(asked)
    finally:
        remove_steering_adapter(switch.decoder)
    assert torch.equal(logits(switch), before)


def test_a_smoothed_gradient_points_more_along_what_the_replies_differ_in(switch: Switch) -> None:
    held = {word: [own.prompt for own in switch.meaning(word)] for word in WORDS}
    means = {
        word: torch.stack(
            [vectors[-1] for (vectors,) in capture_prompts(switch.decoder, own, [READ_LAYER])]
        ).mean(0)
        for word, own in held.items()
    }
    cosines = []
    for smoothing in (0.0, 1.0):
        config = ActivationSteeringConfig(steps=1, smoothing=smoothing)
        found = []
        for word in WORDS:
            objective = switch.objective(word)
            shifts = compute_shifts(switch.decoder, held[other(word)], objective, config)
            moved = torch.stack([shift[0, -1] for shift in shifts.shifts])
            wanted = (means[word] - means[other(word)])[None]
            found.append(F.cosine_similarity(moved, wanted).mean())
        cosines.append(float(torch.stack(found).mean()))
    assert cosines[1] > cosines[0] + 0.05


def logits(switch: Switch) -> torch.Tensor:
    ids = torch.from_numpy(switch.unseen[0].prompt.ids.astype(np.int64))[None]
    with switch.decoder.without_adapter(), torch.no_grad():
        found: torch.Tensor = switch.decoder.net.get_base_model()(ids, use_cache=False).logits
    return found
