"""What steps take on a device, and which settings fit it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BloomConfig, LlamaConfig

from activation_store.model_files.files import ModelFiles
from core.errors import ConfigError, ModelError
from pipelines.experiment.config import Experiment
from pipelines.running.memory_plan import (
    MeasuredPasses,
    describe_memory,
    fit,
    measure,
    parse_bytes,
    plan_memory,
)

GB = 10**9
LLAMA_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


FORMAT = {"compute_dtype": "bfloat16"}
EXPERIMENT = Experiment.model_validate(
    {
        "experiment": "x",
        "data": {"path": "."},
        "dump": FORMAT,
        "train": {"precision": "bfloat16"},
        "evaluate": FORMAT,
    }
)


@pytest.fixture(scope="module")
def eight() -> MeasuredPasses:
    return measure(EXPERIMENT, LLAMA_8B, [14])


def test_an_8b_model_fits_a_card_of_80_gb(eight: MeasuredPasses) -> None:
    plan = fit(eight, EXPERIMENT, 80 * GB)
    assert plan.parameters == 8_030_261_248
    assert plan.steps["train"].weights == 2 * plan.parameters
    # 16 of 32 blocks and the embeddings, without those behind the read layer
    assert 0.4 < plan.steps["dump"].weights / plan.steps["train"].weights < 0.65
    assert plan.steps["train"].adapter == 4 * 41_943_040  # rank 16 on all linear layers
    assert plan.proposal.devices == 1
    assert plan.recomputed_token < 0.3 * plan.token


def test_a_small_card_is_given_recomputation_and_then_company(eight: MeasuredPasses) -> None:
    large, small, tiny = (fit(eight, EXPERIMENT, n * GB) for n in (80, 24, 12))
    assert small.proposal.checkpointing
    assert (small.proposal.micro_batch_tokens or 0) < (large.proposal.micro_batch_tokens or 0)
    assert tiny.proposal.devices > 1
    assert "12 GB" in describe_memory(tiny)[0]
    assert "with runtime.sharding full" in describe_memory(tiny)[-1]
    assert describe_memory(tiny)[-1].endswith("runtime.spread true over 2 for evaluate")


def test_what_eight_devices_do_not_hold_is_named(eight: MeasuredPasses) -> None:
    told = describe_memory(fit(eight, EXPERIMENT, 2 * GB))[-1]
    assert told == "  too large    dump, train and evaluate"


def test_amounts_of_memory() -> None:
    assert parse_bytes("80GB") == 80 * GB
    assert parse_bytes("1.5 GiB") == 3 << 29
    with pytest.raises(ConfigError, match=r"got 'much', expected an amount such as 80GB"):
        parse_bytes("much")


def test_a_model_that_cannot_run_without_weights_is_one_line(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=64, hidden_size=16, n_layer=4, n_head=2)
    config.save_pretrained(tmp_path)
    bloom = ModelFiles(ref="bloom", source=tmp_path)
    experiment = EXPERIMENT.model_copy(
        update={"dump": EXPERIMENT.dump.model_copy(update={"layers": (1,)})}
    )
    with pytest.raises(
        ModelError, match=r"model bloom \(type bloom\) cannot be estimated .*--smoke"
    ):
        plan_memory(experiment, bloom, 10**9)
