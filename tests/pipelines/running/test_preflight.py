"""A target that cannot be used is known before any request is paid for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny

import latentqa
from core.errors import ConfigError, ModelError
from core.files import sha256_file
from pipelines.running import preflight

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what was found to be right before."""
    monkeypatch.setattr(preflight, "_CHECKED", {})


def with_json(name: str, **changes: Any) -> Break:
    """Return what changes fields of a JSON file; None takes one out."""

    def change(folder: Path) -> None:
        path = folder / name
        own = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in own.items() if v is not None}))

    return change


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def drop_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with_json("tokenizer_config.json", chat_template=None)(folder)


def experiment(folder: Path, model: Path, **sections: Any) -> Path:
    """Write an experiment whose rows an LLM writes at an address where nobody listens."""
    tree: dict[str, Any] = {
        "experiment": "own",
        "generate": {"endpoint": {"model": "m", "base_url": "http://127.0.0.1:9"}},
        "dump": {"model": str(model), "layers": [1]},
        **sections,
    }
    path = folder / "own.yaml"
    path.write_text(json.dumps(tree))
    return path


BROKEN: dict[str, tuple[Break, str]] = {
    "truncated": (truncate, "cannot load it"),
    "missing weights": (with_json("config.json", num_hidden_layers=6), "its files hold no "),
    "other sizes": (with_json("config.json", intermediate_size=48), "mend|Correct config.json"),
    "unknown type": (with_json("config.json", model_type="moonlight"), "its config.json is not"),
    "no language model": (with_json("config.json", model_type="vit"), "cannot load it"),
    "quantised by what is not here": (
        with_json("config.json", quantization_config={"quant_method": "bitsandbytes",
                                                      "load_in_4bit": True}),
        "quantised weights cannot be loaded here",
    ),
    "no chat template": (drop_template, "no chat template"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no usable tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_target_that_cannot_be_loaded_is_known_before_the_llm_is_asked(
    name: str, model: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    breaks, says = BROKEN[name]
    breaks(own)
    path = experiment(tmp_path, own)
    for act in (latentqa.plan, latentqa.run):
        with pytest.raises(ModelError, match=says):
            act(path, root=tmp_path / "root")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dump.layers=[9]"], "blocks 0 to 3, got 9. Change dump.layers"),
        (["train.decoder.write_layer=7"], "blocks 0 to 3, got 7"),
        (["train.lora.targets=[q_prok]"], "train.lora: Target modules"),
    ],
)
def test_settings_that_the_target_does_not_fit_are_known_too(
    words: Sequence[str], says: str, model: Path, tmp_path: Path
) -> None:
    path = experiment(tmp_path, model)
    for act in (latentqa.plan, latentqa.run):
        with pytest.raises(ModelError, match=says):
            act(path, root=tmp_path / "root", overrides=words)


def test_a_read_layer_that_is_not_stored_is_known_where_layers_are_told_by_depth(
    model: Path, tmp_path: Path
) -> None:
    config = experiment(tmp_path, model)
    own = ["dump.layers=[0.5]", "train.decoder.read_layer=0"]
    with pytest.raises(ConfigError, match=r"read_layer: got 0, expected one of \[1\]"):
        latentqa.plan(config, root=tmp_path / "root", overrides=own)


def test_an_adapter_of_another_model_is_known_too(model: Path, tmp_path: Path) -> None:
    adapter = tiny.save_adapter(tmp_path / "adapter")
    own = tiny.save(tmp_path / "own", num_hidden_layers=2)
    path = experiment(tmp_path, own)
    for act in (latentqa.plan, latentqa.run):
        with pytest.raises(ModelError, match="adapter"):
            act(path, root=tmp_path / "root", overrides=[f"dump.adapter={adapter}"])


def test_a_device_is_looked_for_where_the_run_is(model: Path, tmp_path: Path) -> None:
    path, words = experiment(tmp_path, model), ["runtime.device=cuda:7"]
    latentqa.plan(path, root=tmp_path / "root", overrides=words)
    with pytest.raises(ConfigError, match="cuda:7"):
        latentqa.run(path, root=tmp_path / "root", overrides=words)


def test_a_plan_of_rows_alone_looks_at_no_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check_models", None)
    latentqa.plan(experiment(tmp_path, model), root=tmp_path / "root", until="questions")


def test_an_adapter_that_fits_passes_and_changes_no_file(model: Path, tmp_path: Path) -> None:
    adapter = tiny.save_adapter(tmp_path / "adapter")
    before = {path: sha256_file(path) for path in adapter.iterdir()}
    found = latentqa.plan(
        experiment(tmp_path, model),
        root=tmp_path / "root",
        overrides=[f"dump.adapter={adapter}"],
    )
    assert {step.status for step in found} == {"miss"}
    assert {path: sha256_file(path) for path in adapter.iterdir()} == before


def write_gguf(
    path: Path, architecture: str = "llama", template: str | None = "{{ messages }}"
) -> Path:
    """Write the header of a small model, without weights."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(4)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("header", "words", "says"),
    [
        ({}, ["dump.layers=[9]"], "blocks 0 to 3, got 9. Change dump.layers"),
        ({}, ["train.lora.targets=[q_prok]"], "train.lora: Target modules"),
        ({"template": None}, [], "no chat template"),
        ({"architecture": "moonlight"}, [], "cannot read this GGUF file"),
    ],
)
def test_a_plan_reads_the_header_of_a_gguf_file_that_is_not_converted(
    header: dict[str, Any],
    words: Sequence[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    path = experiment(tmp_path, write_gguf(tmp_path / "own.gguf", **header))
    with pytest.raises(ModelError, match=says):
        latentqa.plan(path, root=tmp_path / "root", overrides=words)


def test_a_plan_of_a_gguf_file_that_fits_converts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTQA_CACHE", str(tmp_path / "cache"))
    path = experiment(tmp_path, write_gguf(tmp_path / "own.gguf"))
    latentqa.plan(path, root=tmp_path / "root")
    assert not (tmp_path / "cache" / "models").exists()
