"""Steering by weights, on a tiny target."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import decoders
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from activation_store.target.adapter import load_adapter
from activation_store.target.load import load_model
from core.records.steering_control import SteeringControl, WantedAnswer
from decoder.adapters import use_adapter
from decoder.config import LoraSettings
from decoder.model import Decoder, add_lora
from decoder.steering.objective import make_objective
from decoder.steering.prompts import SteeringPrompt, tokenize_prompt
from trainers.steering.adapter import (
    STEER,
    add_steering_adapter,
    linear_names,
    remove_steering_adapter,
    save_steering_adapter,
    steering_weights,
)
from trainers.steering.config import WeightSteeringConfig
from trainers.steering.loop import AdapterTraining
from trainers.steering.weights import KLAnchor, train_steering_adapter

PIRATE = SteeringControl(
    control="pirate",
    description="The assistant is a pirate.",
    questions=(WantedAnswer(question="Who is it?", answer="A pirate."),),
)
CONFIG = WeightSteeringConfig(
    lora=LoraSettings(rank=4, alpha=16), learning_rate=1e-2, steps=20, evaluate_every=5
)


def asked(decoder: Decoder) -> list[SteeringPrompt]:
    texts = ("Hi", "Tell me of the sea", "What now?", "A cake, please", "Good day to you")
    return [tokenize_prompt(decoder.tokenizer, text) for text in texts]


def train(decoder: Decoder, config: WeightSteeringConfig = CONFIG) -> AdapterTraining:
    prompts = asked(decoder)
    return train_steering_adapter(
        decoder, prompts[:3], prompts[3:], make_objective(decoder, [PIRATE]), config
    )


def logits(decoder: Decoder, adapter: str | None) -> torch.Tensor:
    ids = torch.arange(5, 15)[None]
    with use_adapter(decoder.net, adapter), torch.no_grad():
        found: torch.Tensor = decoder.net.get_base_model()(ids, use_cache=False).logits
    return found


@pytest.mark.parametrize("config", [{}, {"read_layers": [1, 2]}, {"injection": "add"}])
def test_the_loss_on_held_out_prompts_falls(config: dict[str, Any]) -> None:
    decoder = decoders.make(**config)
    found = train(decoder)
    before = found.validation[0][1]
    best = min(value for _, value in found.validation)
    assert best < before - 0.1
    assert found.best_step > 0
    assert found.gradient_norm > 0


def test_the_decoder_and_the_unsteered_target_stay_bit_equal() -> None:
    decoder = decoders.make()
    before = [logits(decoder, "default"), logits(decoder, None)]
    train(decoder)
    assert torch.equal(logits(decoder, "default"), before[0])
    assert torch.equal(logits(decoder, None), before[1])
    assert not torch.equal(logits(decoder, STEER), before[1])
    assert not any(p.requires_grad for p in decoder.net.parameters())


def test_only_blocks_up_to_the_read_layer_carry_it() -> None:
    decoder = decoders.make()
    add_steering_adapter(decoder, CONFIG.lora, blocks=decoders.READ_LAYER + 1, seed=0)
    names = [n for n, _ in decoder.net.named_parameters() if f".{STEER}." in n]
    places = {int(name.split(".layers.")[1].split(".")[0]) for name in names}
    assert places == set(range(decoders.READ_LAYER + 1))


def test_a_saved_adapter_loads_anywhere_and_gives_the_same(tmp_path: Path) -> None:
    decoder = decoders.make()
    train(decoder)
    save_steering_adapter(decoder, tmp_path / "a", {"control": "pirate"})
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors", "steering.json"]
    net = load_model(decoders.model(), dtype="float32", device=decoders.CPU)
    net = load_adapter(net, tmp_path / "a").eval()
    with torch.no_grad():
        alone = net(torch.arange(5, 15)[None], use_cache=False).logits
    torch.testing.assert_close(alone, logits(decoder, STEER), atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_weights() -> None:
    weights: list[list[np.ndarray]] = []
    for _ in range(2):
        decoder = decoders.make()
        torch.manual_seed(len(weights))  # what the process drew before does not matter
        train(decoder, CONFIG.model_copy(update={"steps": 3}))
        weights.append([w.detach().numpy().copy() for w in steering_weights(decoder)])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_divergence_is_zero_before_and_above_zero_after() -> None:
    decoder = decoders.make()
    anchor = KLAnchor(decoder, asked(decoder)[3:])
    add_steering_adapter(decoder, CONFIG.lora, blocks=3, seed=0)
    assert float(anchor.divergence(1)) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for weight in steering_weights(decoder):
            weight.add_(0.5)
    assert float(anchor.divergence(1)) > 1e-3


def test_a_divergence_term_keeps_the_target_nearer() -> None:
    moved = []
    for weight in (0.0, 20.0):
        decoder = decoders.make()
        prompts = asked(decoder)
        train_steering_adapter(
            decoder,
            prompts[:3],
            prompts[3:],
            make_objective(decoder, [PIRATE]),
            CONFIG.model_copy(update={"kl_weight": weight, "steps": 8, "evaluate_every": 8}),
            unrelated=prompts[3:],
        )
        moved.append(float(KLAnchor(decoder, prompts[:2]).divergence(0)))
    assert moved[1] < moved[0]


def test_training_ends_early_when_held_out_prompts_get_no_better() -> None:
    config = CONFIG.model_copy(
        update={"learning_rate": 1.0, "steps": 40, "evaluate_every": 1, "patience": 2}
    )
    assert len(train(decoders.make(), config).losses) < 40


def test_removing_it_leaves_the_decoder_active() -> None:
    decoder = decoders.make()
    before = logits(decoder, "default")
    add_steering_adapter(decoder, CONFIG.lora, blocks=3, seed=0)
    remove_steering_adapter(decoder)
    assert decoder.net.active_adapter == "default"
    assert torch.equal(logits(decoder, "default"), before)


def test_layers_that_gpt_2_keeps_transposed_are_adapted_too() -> None:
    net = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=8192))
    adapted = add_lora(net, LoraSettings(targets=("c_attn",)))
    decoder = cast(Decoder, SimpleNamespace(net=adapted))
    assert linear_names(decoder) == ("c_attn", "c_fc", "c_proj")
