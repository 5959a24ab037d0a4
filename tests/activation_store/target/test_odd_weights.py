"""Weights in odd forms, of models and adapters: loaded rightly, or refused in one line."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.target import capture as module
from activation_store.target.config import CompleteConfig
from activation_store.target.load import load_model
from activation_store.target.preflight import check_loadable
from activation_store.target.reply_batches import ReplyJob, ReplyWriter
from core.errors import ModelError, StoreError

CPU = torch.device("cpu")
IDS = torch.arange(5, 25)[None]


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(str(folder)), dtype="float32", device=CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_numbers_without_a_quantisation_are_refused(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = {name: (100 * one).to(torch.int8) for name, one in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    assert "holds model.embed_tokens.weight as whole numbers (I8)" in refusal(folder)


def program(file: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)


def archive(file: Path) -> None:
    with tarfile.open(file, "w") as members:
        for name in ("storages", "tensors", "pickle"):
            members.addfile(tarfile.TarInfo(name))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (program, "is a program (TorchScript), or of a form that may hold code"),
        (archive, "is a program (TorchScript), or of a form that may hold code"),
        (Path.touch, "a pickled file ends before its end"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_pickled_files_of_other_forms_are_told_without_dangerous_advice(
    write: Any, words: str, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    write(folder / "pytorch_model.bin")
    assert words in refusal(folder)


def test_weights_that_are_no_numbers_are_told_from_a_format_that_is_too_small(
    tmp_path: Path,
) -> None:
    folder = tiny.save(tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    rows = stores.table(tmp_path / "rows", [stores.conversation(1, "control")])
    with pytest.raises(StoreError, match="either, so that the model's weights hold what is no num"):
        stores.fill(rows, tmp_path / "store", resolve_model(str(folder)))


def test_a_model_that_fails_as_it_runs_is_one_line(
    model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    rows = stores.table(tmp_path / "rows", [stores.conversation(1, "stimulus")])
    monkeypatch.setattr(module.Capture, "_run", fail)
    with pytest.raises(ModelError, match=r"llama: it fails on the first .* the same dtype.*config"):
        stores.fill(rows, tmp_path / "store", model)
    job = ReplyJob(
        conversations=rows,
        work=tmp_path,
        config=CompleteConfig(),
        model=model,
        runtime=stores.RUNTIME,
    )
    monkeypatch.setattr(torch.nn.Embedding, "forward", fail)
    with pytest.raises(ModelError, match=r"it fails on a short prompt .expected m1"):
        ReplyWriter(job)


# adapters


def saved_adapter(folder: Path, **settings: Any) -> Path:
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], **settings)
    net = get_peft_model(tiny.model(), config)
    torch.manual_seed(0)
    with torch.no_grad():
        for values in net.parameters():
            if values.requires_grad:
                values.add_(torch.randn_like(values) * 0.3)
    net.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_starts_from_the_weights_is_loaded(
    start: Any, model: ModelFiles, tmp_path: Path
) -> None:
    adapter = saved_adapter(tmp_path / "adapter", init_lora_weights=start)
    adapted = replace(resolve_model(model.ref), adapter=adapter)
    check_loadable(adapted, stores.RUNTIME, here=True)
    beside: Any = PeftModel.from_pretrained(tiny.model(), adapter).eval()
    found: Any = load_model(adapted, dtype="float32", device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, beside(IDS).logits, rtol=1e-4, atol=1e-3)


def test_an_adapter_without_a_tensor_is_refused(model: ModelFiles, tmp_path: Path) -> None:
    adapter = saved_adapter(tmp_path / "adapter")
    save_file({}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"it lacks .* \(16 of 16 tensors\)"):
        load_model(replace(resolve_model(model.ref), adapter=adapter), dtype="float32", device=CPU)


def test_a_folder_of_the_hubs_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "models--org--name" / "snapshots").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"of the hub's cache. Name one of those in its snapshots"):
        resolve_model(str(tmp_path / "models--org--name"))
