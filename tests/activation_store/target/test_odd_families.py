"""Families of models that compute by their depth, their neighbours in a batch, or what they saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

from activation_store.model_files.files import resolve_model
from activation_store.target.capture import Capture
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import Sampling, generate_ids, is_batchable
from activation_store.target.load import blocks, load_model
from activation_store.target.preflight import check_loadable
from activation_store.target.reply_batches import ReplyJob, ReplyWriter
from core.errors import ModelError
from core.runtime import Runtime

CPU = torch.device("cpu")
IDS = np.arange(5, 25)
SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "v_head_dim": 8}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "MiniCPM3": {**SHAPE, **LATENT, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8},
    "MiniMax": {**SHAPE, **EXPERTS, "layer_types": ["linear_attention"] * 4, "block_size": 8},
    "Mamba": {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 4},
    "RecurrentGemma": {**SHAPE, "lru_width": 32, "attention_window_size": 8},
    "Rwkv": {**{k: v for k, v in SHAPE.items() if "head" not in k}, "attention_hidden_size": 32},
    "Gemma3n": {
        **SHAPE,
        "layer_types": ["full_attention"] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "vocab_size_per_layer_input": 320,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "num_kv_shared_layers": 0,
    },
    "Bart": {
        "vocab_size": 320,
        "d_model": 32,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    },
}


def network(family: str) -> Any:
    """Make a model all of whose matrices do something."""
    torch.manual_seed(0)
    kind = f"{family}TextConfig" if family == "Gemma3n" else f"{family}Config"
    config = getattr(transformers, kind)(**FAMILIES[family])
    net = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for values in net.parameters():
            if values.ndim > 1:
                values.normal_(std=0.2)
    return net


def saved(family: str, folder: Path) -> Path:
    network(family).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["MiniCPM3", "MiniMax"])
def test_the_first_blocks_of_a_model_that_scales_by_its_depth_are_those_of_the_whole(
    family: str, tmp_path: Path
) -> None:
    model = resolve_model(str(saved(family, tmp_path / "model")))
    whole = load_model(model, dtype="float32", device=CPU)
    first = load_model(model, dtype="float32", device=CPU, first_blocks=2)
    expected, found = (Capture(net, [1])([IDS])[1] for net in (whole, first))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_later_blocks_of_most_models_stay_on_the_disk(tmp_path: Path) -> None:
    model = resolve_model(str(tiny.save(tmp_path / "model", family="gemma3")))
    assert len(blocks(load_model(model, dtype="float32", device=CPU, first_blocks=2))) == 2


def test_what_was_computed_otherwise_before_is_another_model(tmp_path: Path) -> None:
    assert "run" in resolve_model(str(saved("Rwkv", tmp_path / "rwkv"))).digests()
    assert "run" not in resolve_model(str(tiny.save(tmp_path / "llama"))).digests()


PROMPTS = [np.random.default_rng(0).integers(5, 300, n).tolist() for n in (4, 14, 30, 9, 14)]


def alone(net: Any, sampling: Sampling) -> list[list[int]]:
    return [generate_ids(net, [own], (), sampling)[0] for own in PROMPTS]


@pytest.mark.parametrize("family", ["RecurrentGemma", "Rwkv"])
def test_replies_of_a_model_that_takes_padding_in_are_what_they_are_alone(
    family: str, tmp_path: Path
) -> None:
    model = resolve_model(str(saved(family, tmp_path / "model")))
    config, runtime = CompleteConfig(max_tokens=6), Runtime(device="cpu", threads=1)
    job = ReplyJob(
        conversations=tmp_path, work=tmp_path, config=config, model=model, runtime=runtime
    )
    writer = ReplyWriter(job)
    writer._reader.ends = frozenset()
    assert writer._generate(PROMPTS, 0, 0.0) == alone(network(family), Sampling(max_tokens=6))


@pytest.mark.parametrize(
    ("family", "batchable"),
    [
        *(("Mamba", True), ("MiniMax", True), ("MiniCPM3", True)),
        *(("RecurrentGemma", False), ("Rwkv", False), ("Bart", False)),
    ],
)
def test_a_batch_that_changes_scores_is_found(family: str, batchable: bool) -> None:
    assert is_batchable(network(family)) == batchable


def test_dynamic_positions_do_not_follow_what_was_seen_before() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}

    def fresh() -> Any:
        return tiny.model(rope_parameters=rope, max_position_embeddings=8)

    prompts, sampling = [list(range(5, 5 + n)) for n in (40, 4, 24, 60, 20)], Sampling(max_tokens=6)
    expected = [generate_ids(fresh(), [own], (), sampling)[0] for own in prompts]
    assert generate_ids(fresh(), prompts, (), sampling) == expected


def test_blocks_that_write_several_streams_behind_one_another_are_refused() -> None:
    net = tiny.model()
    blocks(net)[1].register_forward_hook(lambda module, args, out: torch.cat([out] * 3, 1))
    with pytest.raises(ModelError, match=r"has shape \[1, 9, 32\] for \[1, 3\] tokens"):
        Capture(net, (1,))([np.arange(3)])


def test_several_streams_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    model = resolve_model(str(saved("Gemma3n", tmp_path / "model")))
    with pytest.raises(ModelError, match=r"has shape \[4, 1, 4, 32\] for .* residual streams"):
        check_loadable(model, Runtime(device="cpu", threads=1), here=True)


def test_a_config_without_an_end_of_positions_limits_no_row(tmp_path: Path) -> None:
    from activation_store.target.load import model_shape

    folder = tiny.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": -1}))
    assert model_shape(resolve_model(str(folder))).max_positions > 10**6
