"""Folders of models and adapters as people have them: the right activations, or one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, LlamaConfig

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.target.load import load_model, load_tokenizer
from activation_store.target.model_checks import check_quantization, quantization_of
from core.errors import ModelError
from core.records.table_files import DROPPED_FILE, read_dropped

CPU = torch.device("cpu")
IDS = torch.arange(5, 25)[None]
UP = "model.layers.2.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor]


def loaded_of(model: ModelFiles) -> Any:
    return load_model(model, dtype="float32", device=CPU)


def loaded(folder: Path | str, adapter: Path | None = None) -> Any:
    return loaded_of(resolve_model(str(folder), None if adapter is None else str(adapter)))


def logits(net: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net(IDS).logits
    return found


def edited(folder: Path, change: Callable[[Tensors], Any], **config: Any) -> Path:
    """Make a tiny model whose tensors and config are changed behind each other's back."""
    tiny.save(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def refusal(folder: Path | str, adapter: Path | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        loaded(folder, adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefix(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"language_model.{name}"] = tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (lambda tensors: tensors.pop(UP), {}, f"hold no {UP} (1 weights"),
        (prefix, {}, "weights of its config are missing"),
        (dict, {"num_hidden_layers": 5}, "hold no model.layers.4.input_layernorm.weight (9"),
        (dict, {"tie_word_embeddings": False}, "hold no lm_head.weight (1 weights"),
        (dict, {"vocab_size": 400}, "embed_tokens.weight of size [320, 32], but its config.json"),
    ],
    ids=["a tensor is missing", "all have other names", "a block too many", "no head", "resized"],
)
def test_weights_that_would_be_drawn_at_random_are_refused(
    change: Callable[[Tensors], Any], config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert words in refusal(edited(tmp_path / "model", change, **config))


def test_tensors_that_the_config_does_not_ask_for_change_nothing(
    model: ModelFiles, tmp_path: Path
) -> None:
    folder = edited(tmp_path / "model", lambda t: t.update(other=torch.zeros(3)))
    assert torch.equal(logits(loaded(folder)), logits(loaded(model.ref)))


def test_a_head_of_its_own_beside_a_tied_config_is_the_files(
    model: ModelFiles, tmp_path: Path
) -> None:
    head = torch.randn(320, 32, generator=torch.manual_seed(0))
    folder = edited(tmp_path / "model", lambda t: t.update({"lm_head.weight": head}))
    net, plain = loaded(folder), loaded(model.ref)
    assert torch.equal(net.get_output_embeddings().weight, head)
    assert torch.equal(net.get_input_embeddings().weight, plain.get_input_embeddings().weight)


# shards


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Return the tiny model in eleven files and an index."""
    folder = tmp_path / "sharded"
    tiny.model().save_pretrained(folder, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_a_shard_that_the_index_does_not_name_changes_neither_weights_nor_digest(
    sharded: Path, model: ModelFiles
) -> None:
    before = resolve_model(str(sharded)).digests()
    shutil.copy(next(sharded.glob("model-*")), sharded / "model-00099-of-00099.safetensors")
    assert resolve_model(str(sharded)).digests() == before
    assert torch.equal(logits(loaded(sharded)), logits(loaded(model.ref)))


@pytest.mark.parametrize("content", [{}, {"weight_map": [1]}, {"weight_map": {"a": 1}}])
def test_an_index_that_maps_nothing_is_one_line(content: Any, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps(content))
    assert "expected a weight_map of names to files" in refusal(sharded)


def test_pickled_weights_beside_others_are_not_loaded(model: ModelFiles, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    torch.save(tiny.model(seed=5).state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(logits(loaded(folder)), logits(loaded(model.ref)))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_git_lfs_has_not_fetched_is_named(name: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\n")
    load = load_tokenizer if name.startswith("tokenizer") else loaded_of
    with pytest.raises(ModelError, match=rf"{name} is a pointer of Git LFS.*git lfs pull"):
        load(resolve_model(str(folder)))


def test_weights_of_an_adapter_that_git_lfs_has_not_fetched_are_named(
    model: ModelFiles, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec")
    assert "adapter_model.safetensors is a pointer of Git LFS" in refusal(model.ref, adapter)


class Code:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trace,)


def test_pickled_code_never_runs_and_is_told(model: ModelFiles, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    folder = tiny.save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Code(trace)}, folder / "pytorch_model.bin")
    adapter = make_adapter(tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": Code(trace)}, adapter / "adapter_model.bin")
    for said in (refusal(folder), refusal(model.ref, adapter)):
        assert "holds more than weights: code that would run" in said
    assert not trace.exists()


# quantised weights


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "quantised by 'modelopt', which"),
        ({"quant_method": "exl2", "bits": 4}, "quantised by 'exl2', which"),
        ({"group_size": 64, "bits": 4}, "quantised by None, which"),
        ("4 bits", "quantization_config in its config.json is not an object"),
    ],
)
@pytest.mark.parametrize("place", ["model", "text"])
def test_a_quantisation_that_would_be_left_out_is_refused(
    settings: Any, words: str, place: str
) -> None:
    config: Any = LlamaConfig()
    if place == "text":
        config = Gemma3Config(text_config={"num_hidden_layers": 1})
    config.get_text_config().quantization_config = settings
    with pytest.raises(ModelError, match=r"^model m: ") as caught:
        quantization_of(config, "m")
    assert words in str(caught.value)


@pytest.mark.parametrize("groups", [[1], {"a": 1}, {"a": {"input_activations": "dynamic"}}, "x"])
def test_groups_of_a_quantisation_in_another_form_are_left_to_its_library(
    groups: Any, model: ModelFiles
) -> None:
    config: Any = LlamaConfig()
    config.quantization_config = {"quant_method": "compressed-tensors", "config_groups": groups}
    assert check_quantization(model, config)


def test_a_config_that_does_not_add_up_is_refused_with_the_reason(tmp_path: Path) -> None:
    said = refusal(edited(tmp_path / "model", dict, num_attention_heads=3))
    assert "The hidden size (32) is not a multiple" in said


def test_scales_that_no_config_tells_of_are_refused(tmp_path: Path) -> None:
    scale = {f"{UP}_scale_inv": torch.ones(1)}
    said = refusal(edited(tmp_path / "model", lambda tensors: tensors.update(scale)))
    assert f"hold {UP}_scale_inv (1 scales of quantised weights)" in said


# tokens without an embedding


def test_a_row_with_a_token_that_has_no_embedding_is_dropped_by_name(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<new{i}>" for i in range(100)])
    tokenizer.save_pretrained(folder)
    rows = [stores.conversation(1, "control"), stores.conversation(2, "control", "Be <new99>.")]
    out = tmp_path / "store"
    result = stores.fill(stores.table(tmp_path / "rows", rows), out, resolve_model(str(folder)))
    assert (result.sequences, result.dropped) == (1, {"template": 1})
    (dropped,) = read_dropped(out / DROPPED_FILE)
    assert "the token <new99> is number 358 of the tokenizer" in dropped.detail
    assert "has embeddings for 320" in dropped.detail


# adapters

TIED = {
    "a head of its own": {"modules_to_save": ["lm_head"]},
    "an embedding of its own": {"modules_to_save": ["embed_tokens"]},
    "both of its own": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "LoRA of the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "LoRA of the head": {"target_modules": ["lm_head", "q_proj"]},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True, "r": 4},
    "a norm of its own": {"modules_to_save": ["norm"]},
    "ranks by module": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"up_proj": 9}},
    "new tokens": {"trainable_token_indices": [5, 6]},
    **TIED,
}


def make_adapter(folder: Path, **settings: Any) -> Path:
    """Make an adapter of the tiny model of which all that it trains is something."""
    from peft import LoraConfig, get_peft_model

    settings = {"r": 2, "target_modules": ["q_proj", "up_proj"], **settings}
    net = get_peft_model(tiny.model(), LoraConfig(**settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for values in net.parameters():
            if values.requires_grad:
                values.add_(torch.randn_like(values) * 0.3)
    net.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")
def test_an_adapter_gives_the_activations_and_logits_that_it_gives_beside_the_weights(
    name: str, model: ModelFiles, tmp_path: Path
) -> None:
    from peft import PeftModel

    adapter = make_adapter(tmp_path / "adapter", **ADAPTERS[name])
    beside: Any = PeftModel.from_pretrained(tiny.model(), adapter).eval()
    torch.testing.assert_close(
        logits(loaded(model.ref, adapter)), logits(beside), rtol=1e-4, atol=1e-3
    )
    row = stores.conversation(1, "system")
    found = replace(resolve_model(model.ref), adapter=adapter)
    out = tmp_path / "store"
    stores.fill(
        stores.table(tmp_path / "rows", [row]), out, found, layers=(1,), store_dtype="float32"
    )
    store = ActivationStore(out)
    ids = torch.as_tensor(store.tokens(row.example_id)[None].astype(np.int64))
    with torch.no_grad():
        expected = beside(ids, output_hidden_states=True).hidden_states[2][0].numpy()
    np.testing.assert_allclose(store.read(row.example_id, 1), expected, rtol=0, atol=2e-4)


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")
def test_what_was_merged_into_both_tied_layers_is_another_model(
    model: ModelFiles, tmp_path: Path
) -> None:
    marked = {
        name: "adapter_merge"
        in replace(
            resolve_model(model.ref), adapter=make_adapter(tmp_path / str(place), **settings)
        ).digests()
        for place, (name, settings) in enumerate(ADAPTERS.items())
    }
    assert marked == {name: name in TIED for name in ADAPTERS}


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("layers.", "blocks."): one.clone() for name, one in tensors.items()}


def without_a_block(tensors: Tensors) -> Tensors:
    return {name: one for name, one in tensors.items() if ".layers.1." not in name}


def with_a_block_more(tensors: Tensors) -> Tensors:
    return tensors | {
        name.replace("layers.1.", "layers.9."): one.clone() for name, one in tensors.items()
    }


def with_another_vocabulary(tensors: Tensors) -> Tensors:
    return tensors | {"base_model.model.model.embed_tokens.weight": torch.zeros(330, 32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, "it lacks base_model.model.model.layers.0.mlp.up_proj.lora_A.weight .16 of 16"),
        (without_a_block, "it lacks base_model.model.model.layers.1.mlp.up_proj.lora_A.weight .4"),
        (with_a_block_more, "it has, with no place for, base_model.model.model.layers.9.mlp.up"),
        (with_another_vocabulary, "its vocabulary has 330 tokens .*, and model .* has 320"),
    ],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_an_adapter_that_would_be_loaded_in_part_is_refused(
    change: Callable[[Tensors], Tensors],
    words: str,
    pickled: bool,
    model: ModelFiles,
    tmp_path: Path,
) -> None:
    file = make_adapter(tmp_path / "adapter") / "adapter_model.safetensors"
    tensors = change(load_file(file))
    if pickled:
        file.unlink()
        torch.save(tensors, file.with_suffix(".bin"))
    else:
        save_file(tensors, file)
    assert re.search(words, refusal(model.ref, file.parent))


def test_an_adapter_of_another_width_is_refused_with_both_sizes(
    model: ModelFiles, tmp_path: Path
) -> None:
    file = make_adapter(tmp_path / "adapter") / "adapter_model.safetensors"
    wide = {name: torch.zeros(one.shape[0], 64) for name, one in load_file(file).items()}
    save_file(wide, file)
    said = refusal(model.ref, file.parent)
    assert "size mismatch for" in said
    assert all(f"[2, {width}]" in said for width in (32, 64))


def test_an_adapter_that_changes_no_weights_is_refused(model: ModelFiles, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny.model(), config).save_pretrained(str(tmp_path / "adapter"))
    said = refusal(model.ref, tmp_path / "adapter")
    assert "has type PROMPT_TUNING, expected one that changes weights" in said


# templates apart from a tokenizer


def test_the_template_of_an_adapter_without_a_tokenizer_is_used(
    model: ModelFiles, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    before = resolve_model(model.ref, str(adapter)).digests()
    (adapter / "chat_template.jinja").write_text(tiny.LLAMA3)
    found = resolve_model(model.ref, str(adapter))
    assert load_tokenizer(found).chat_template == tiny.LLAMA3
    assert found.digests().keys() - before.keys() == {"adapter_template"}


def test_a_tokenizer_of_an_adapter_without_a_template_is_named(
    model: ModelFiles, tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    tiny.tokenizer().save_pretrained(adapter)
    (adapter / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=f"adapter {adapter}: its tokenizer has no chat template"):
        load_tokenizer(resolve_model(model.ref, str(adapter)))


def test_the_template_of_a_processor_is_used(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": tiny.LLAMA3}))
    assert load_tokenizer(resolve_model(str(folder))).chat_template == tiny.LLAMA3
