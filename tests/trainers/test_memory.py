"""What a step takes by the plan, against what torch's allocator hands out."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers
from torch import nn

from activation_store.model_files.files import resolve_model
from activation_store.target.load import load_model
from decoder.config import LoraSettings
from trainers.memory import MemoryModel, Workload, _loss, adapt

CPU = torch.device("cpu")
WITHIN = 0.15
WORK = Workload(tokens=512, row_tokens=128, answer_tokens=24, placeholders=40)
LORA = LoraSettings(rank=4)


def measured_peak(step: Any) -> int:
    """Return the most bytes that the CPU's allocator had handed out beyond those before `step`."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    results: Any = profile.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def check(net: nn.Module, dtype: str, *, checkpointing: bool) -> None:
    """Compare the plan of a training step of `net` with the step itself."""
    config: Any = net.config
    planned = MemoryModel(config=config, dtype=dtype).measure_training(
        WORK, LORA, checkpointing=checkpointing
    )
    net.requires_grad_(False)
    decoder = adapt(net, LORA).train()
    if checkpointing:
        net.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    weights = [p for p in decoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights)

    def step() -> None:
        torch.autograd.backward(_loss(decoder, net, WORK).sum())
        optimiser.step()
        optimiser.zero_grad()

    step()
    own = sum(p.numel() * p.element_size() for p in decoder.parameters())
    moments = sum(v.numel() * 4 for s in optimiser.state.values() for v in s.values())
    assert planned.weights + planned.adapter == own
    peak = own + moments + measured_peak(step)
    print(f"planned {planned.peak / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB")
    assert planned.peak == pytest.approx(peak, rel=WITHIN)


@pytest.mark.parametrize(("kind", "is_cut"), [("Llama", True), ("MiniCPM3", False)])
def test_a_dump_takes_all_blocks_of_a_model_that_is_loaded_whole(kind: str, is_cut: bool) -> None:
    latent = dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "v_head_dim"), 8)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        **({} if kind == "Llama" else latent | {"qk_rope_head_dim": 8, "head_dim": 8}),
    )
    model = MemoryModel(config=config, dtype="float32")
    planned = model.measure_dump(layers=1, blocks_loaded=2, tokens=32, row=16)
    assert (planned.weights < 4 * model.count_parameters()) == is_cut


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_takes_what_the_plan_says(dtype: str, checkpointing: bool) -> None:
    check(tiny.model().to(getattr(torch, dtype)), dtype, checkpointing=checkpointing)


@pytest.mark.embedded
@pytest.mark.prove
def test_so_does_one_of_the_embedded_model() -> None:
    model = resolve_model("embedded")
    check(load_model(model, dtype="float32", device=CPU), "float32", checkpointing=False)
