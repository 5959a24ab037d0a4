"""Loading the target, finding its blocks, choosing where it runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
import torch
import transformers

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.target import load as target
from core.errors import ConfigError, ModelError
from core.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture
def folder(model: ModelFiles, tmp_path: Path) -> Path:
    """Return the tiny model's folder, of the test's own."""
    return shutil.copytree(model.source, tmp_path / "model")


def test_auto_takes_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert target.pick_device(Runtime()) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert target.pick_device(Runtime()).type == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu:one"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a device; expected auto, cpu, cuda, cuda:N"):
        target.pick_device(Runtime(device=name))


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps", "xla", "cpu:1"])
def test_a_device_that_is_not_here_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"'{name}' is not on this machine"):
        target.pick_device(Runtime(device=name))


def test_a_second_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert target.pick_device(Runtime(device="cuda:1")).index == 1
    with pytest.raises(ConfigError):
        target.pick_device(Runtime(device="cuda:2"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_blocks_of_each_family_are_found(family: str) -> None:
    net = tiny.model(family=family)
    found = target.blocks(net)
    assert len(found) == 4
    assert all("DecoderLayer" in type(b).__name__ or "Layer" in type(b).__name__ for b in found)


def test_the_blocks_of_older_families_are_found() -> None:
    config = transformers.GPT2Config(n_layer=3, n_embd=32, n_head=4, vocab_size=50)
    assert len(target.blocks(transformers.GPT2LMHeadModel(config))) == 3


def test_blocks_that_are_nowhere_are_refused() -> None:
    net = tiny.model()
    net.model.layers = torch.nn.ModuleList(list(net.model.layers)[:2])
    with pytest.raises(ModelError, match="type llama: its blocks were not found"):
        target.blocks(net)


def test_a_models_shape_has_one_name_for_all_families(tmp_path: Path) -> None:
    transformers.GPT2Config(n_layer=3, n_embd=48, n_positions=77).save_pretrained(tmp_path)
    shape = target.model_shape(ModelFiles(ref="gpt", source=tmp_path))
    assert (shape.n_blocks, shape.d_model, shape.max_positions) == (3, 48, 77)


def test_the_shape_of_a_model_with_several_parts_is_its_texts(tmp_path: Path) -> None:
    config = transformers.Gemma3Config(
        text_config={"num_hidden_layers": 5, "hidden_size": 24, "max_position_embeddings": 99}
    )
    config.save_pretrained(tmp_path)
    shape = target.model_shape(ModelFiles(ref="gemma", source=tmp_path))
    assert (shape.n_blocks, shape.d_model, shape.max_positions) == (5, 24, 99)


@pytest.mark.parametrize(("layer", "index"), [(0, 0), (3, 3), (-1, 3)])
def test_a_layer_is_counted_from_0_and_the_last_is_minus_1(layer: int, index: int) -> None:
    shape = target.Shape(ref="m", n_blocks=4, d_model=8, max_positions=10, vocabulary=9)
    assert shape.layer(layer, "dump.layers") == index


@pytest.mark.parametrize(
    ("blocks", "depth", "index"), [(32, 0.5, 15), (30, 0.5, 14), (36, 0.25, 8), (4, 0.01, 0)]
)
def test_a_fraction_is_a_relative_depth(blocks: int, depth: float, index: int) -> None:
    shape = target.Shape(ref="m", n_blocks=blocks, d_model=8, max_positions=10, vocabulary=9)
    assert shape.layer(depth, "dump.layers") == index


@pytest.mark.parametrize("layer", [4, -2])
def test_a_layer_that_is_not_there_names_the_setting(layer: int) -> None:
    shape = target.Shape(ref="m", n_blocks=4, d_model=8, max_positions=10, vocabulary=9)
    expected = f"model m: it has blocks 0 to 3, got {layer}. Change dump.layers."
    with pytest.raises(ModelError) as caught:
        shape.layer(layer, "dump.layers")
    assert str(caught.value) == expected


def test_a_loaded_model_is_frozen_and_still(model: ModelFiles) -> None:
    net = target.load_model(model, dtype="bfloat16", device=CPU)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


def one_line(caught: pytest.ExceptionInfo[ModelError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("damage", [stores.truncate, lambda p: p.write_bytes(b"garbage")])
def test_broken_weights_are_one_line(damage: Callable[[Path], object], folder: Path) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"model {folder}: transformers cannot load it") as caught:
        target.load_model(resolve_model(str(folder)), dtype="float32", device=CPU)
    one_line(caught)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "no-such-thing"}', '{"architectures": []}', ""]
)
def test_a_broken_config_is_one_line(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"its config.json is not one that transformers") as caught:
        target.model_shape(resolve_model(str(folder)))
    one_line(caught)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 1}', ""])
def test_a_broken_tokenizer_is_one_line(content: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="no usable tokenizer") as caught:
        target.load_tokenizer(resolve_model(str(folder)))
    one_line(caught)


def test_a_tokenizer_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template; use an instruct model"):
        target.load_tokenizer(resolve_model(str(folder)))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Return a LoRA adapter of the tiny model that does something."""
    return tiny.save_adapter(tmp_path / "adapter")


def test_a_targets_own_adapter_is_merged(model: ModelFiles, adapter: Path) -> None:
    from peft import PeftModel

    ids = torch.arange(5, 15)[None]
    merged = target.load_model(resolve_model(model.ref, str(adapter)), dtype="float32", device=CPU)
    plain = target.load_model(model, dtype="float32", device=CPU)
    expected = PeftModel.from_pretrained(tiny.model(), adapter)(ids).logits
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain(ids).logits, expected, atol=1e-3)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_broken_adapter_is_one_line(file: str, model: ModelFiles, adapter: Path) -> None:
    stores.truncate(adapter / file)
    with pytest.raises(ModelError, match=r"peft cannot load it|not JSON") as caught:
        target.load_model(resolve_model(model.ref, str(adapter)), dtype="float32", device=CPU)
    one_line(caught)


def test_threads_are_set_only_where_they_are_named() -> None:
    torch.set_num_threads(1)
    target.use_threads(Runtime())
    assert torch.get_num_threads() == 1
    target.use_threads(Runtime(threads=2))
    assert torch.get_num_threads() == 2


def config_with(model: ModelFiles, folder: Path, **changes: object) -> ModelFiles:
    """Return the tiny model with changes to its config.json."""
    path = shutil.copytree(model.source, folder / "changed")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    return resolve_model(str(path))


def load(model: ModelFiles) -> torch.nn.Module:
    return target.load_model(model, dtype="float32", device=CPU)


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
    ],
)
def test_a_quantised_model_that_cannot_be_loaded_is_one_line(
    settings: dict[str, object], model: ModelFiles, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="transformers cannot load it") as caught:
        load(config_with(model, tmp_path, quantization_config=settings))
    one_line(caught)


@pytest.mark.parametrize(
    ("settings", "device_map"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"": torch.device("cuda:1")}),
        ({"quant_method": "gptq", "bits": 4}, {"": torch.device("cuda:1")}),
        (None, None),
    ],
)
def test_quantised_weights_are_loaded_where_they_run(
    settings: dict[str, object] | None,
    device_map: object,
    model: ModelFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: dict[str, object] = {}

    def from_pretrained(folder: Path, **placement: object) -> None:
        found.update(placement)
        raise RuntimeError("no such card")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
    changed = config_with(
        model, tmp_path, **({"quantization_config": settings} if settings else {})
    )
    with pytest.raises(ModelError, match="no such card"):
        target.load_model(changed, dtype="bfloat16", device=torch.device("cuda:1"))
    assert found.get("device_map") == device_map


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": None},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "group_0": {"input_activations": {"dynamic": True, "strategy": "tensor"}}
            },
        },
    ],
)
def test_activations_that_are_quantised_by_the_batch_are_refused(
    settings: dict[str, object], model: ModelFiles, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="a scale for a whole batch") as caught:
        load(config_with(model, tmp_path, quantization_config=settings))
    one_line(caught)


CODE = """
from transformers import LlamaConfig
open({path!r}, "w").write("run")
class OwnConfig(LlamaConfig):
    model_type = "own"
"""


def test_code_of_a_folder_runs_with_the_configs_consent_alone(
    model: ModelFiles, tmp_path: Path
) -> None:
    found = config_with(model, tmp_path, model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})
    trace = tmp_path / "trace"
    (found.source / "own.py").write_text(CODE.format(path=str(trace)))
    with pytest.raises(ModelError, match="needs Python code of its folder") as caught:
        target.model_shape(found)
    one_line(caught)
    assert "dump.trust_remote_code" in str(caught.value)
    assert not trace.exists()
    trusted = resolve_model(found.ref, trust_remote_code=True)
    assert target.model_shape(trusted).n_blocks == 4
    assert trace.read_text() == "run"
    assert "code" in trusted.digests()


def test_a_tokenizer_of_an_adapter_that_is_larger_than_the_model_is_refused(
    model: ModelFiles, adapter: Path
) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<new{i}>" for i in range(100)])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(ModelError, match=r"its tokenizer has \d+ tokens, and model .* has 320"):
        target.load_tokenizer(resolve_model(model.ref, str(adapter)))


def test_the_tokenizer_and_template_of_an_adapter_are_used(
    model: ModelFiles, adapter: Path
) -> None:
    tiny.tokenizer(tiny.PHI3).save_pretrained(adapter)
    tokenizer = target.load_tokenizer(resolve_model(model.ref, str(adapter)))
    assert tokenizer.chat_template == tiny.PHI3


def test_another_base_of_an_adapter_is_told(
    model: ModelFiles, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "org/other-model"}))
    load(resolve_model(model.ref, str(adapter)))
    assert "its base is said to be org/other-model" in caplog.text


def test_weights_that_were_swapped_behind_a_key_are_not_run(
    model: ModelFiles, tmp_path: Path
) -> None:
    found = config_with(model, tmp_path)
    found.digests()
    other = tiny.save(tmp_path / "other", seed=9)
    weights = found.source / "model.safetensors"
    before = weights.stat()
    weights.write_bytes((other / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="its weights changed on disk while it was in use"):
        load(found)


def test_the_head_is_handed_the_last_tokens_of_all_rows_as_one_matrix(model: ModelFiles) -> None:
    net: Any = target.load_model(model, dtype="float32", device=CPU)
    whole: list[bool] = []
    head = net.get_output_embeddings()
    head.register_forward_hook(lambda _, args, logits: whole.append(args[0].is_contiguous()))
    with torch.no_grad():
        net(torch.zeros(3, 5, dtype=torch.long), use_cache=False, logits_to_keep=1)
    assert whole == [True]
