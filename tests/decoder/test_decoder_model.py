"""A decoder on disk: an ordinary adapter, and what it is bound to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decoders
import pytest
import stores
import tiny
import torch

from activation_store.model_files.files import ModelFiles, resolve_model
from core.errors import ModelError, StoreError
from core.runtime import Runtime
from decoder.batch import make_batch
from decoder.binding import SIDECAR, Binding, read_sidecar
from decoder.config import DecoderConfig, LoraSettings
from decoder.forward import compute_answer_losses
from decoder.model import Decoder

IDS = torch.arange(5, 25)[None]


def losses(decoder: Decoder) -> torch.Tensor:
    turns = [
        [
            decoder.prompt.turn("Who?", "A pirate."),
            decoder.prompt.turn("Why?", "Rum."),
        ]
    ]
    batch = make_batch(decoder.prompt, [decoders.reading(9, 12)], turns)
    with torch.no_grad():
        return compute_answer_losses(decoder.net, decoder.injection, batch)


def load(folder: Path, model: ModelFiles | None = None) -> Decoder:
    return Decoder.load(folder, model or decoders.model(), "float32", Runtime(device="cpu"))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Decoder, Path]:
    """Make a decoder, as if trained; return it and its folder."""
    decoder = decoders.make(write_layer=1, positions="plain")
    folder = tmp_path / "decoder"
    folder.mkdir()
    decoder.save(folder)
    return decoder, folder


@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_a_new_adapter_changes_nothing(family: str) -> None:
    decoder = decoders.make(family, nudge=0.0)
    with torch.no_grad():
        new = decoder.net(IDS).logits
        with decoder.without_adapter():
            untrained = decoder.net(IDS).logits
        kind = "llama" if family == "llama3" else family
        target = tiny.model(family=kind)(IDS).logits
    assert torch.equal(new, untrained)
    torch.testing.assert_close(untrained, target)


def test_the_adapter_is_off_within_untrained_and_on_after_it() -> None:
    decoder = decoders.make()
    trained = losses(decoder)
    with decoder.without_adapter():
        untrained = losses(decoder)
    assert torch.equal(losses(decoder), trained)
    assert torch.equal(untrained, losses(decoders.make(nudge=0.0)))
    assert not torch.allclose(trained, untrained)


def test_the_same_seed_makes_the_same_adapter() -> None:
    files = decoders.model()

    def weights(seed: int) -> dict[str, torch.Tensor]:
        decoder = Decoder.create(
            files,
            config=DecoderConfig(normalisation="none"),
            lora=LoraSettings(),
            binding=Binding(read_layer=1, target={}, model="tiny"),
            dtype="float32",
            device=decoders.CPU,
            seed=seed,
        )
        return {n: p for n, p in decoder.net.named_parameters() if "lora_A" in n}

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


def test_only_the_adapter_learns_and_no_language_head_is_in_it() -> None:
    names = [n for n, p in decoders.make().net.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_a_loaded_decoder_is_the_saved_one(saved: tuple[Decoder, Path]) -> None:
    decoder, folder = saved
    again = load(folder)
    assert torch.equal(losses(again), losses(decoder))
    assert again.config == decoder.config
    assert again.binding.read_layer == decoder.binding.read_layer
    assert again.binding.target == decoder.binding.target
    assert not any(p.requires_grad for p in again.net.parameters())
    assert not again.net.training


def test_saving_again_gives_the_same_bytes(saved: tuple[Decoder, Path], tmp_path: Path) -> None:
    _, folder = saved
    (tmp_path / "again").mkdir()
    load(folder).save(tmp_path / "again")
    assert stores.contents(tmp_path / "again") == stores.contents(folder)


def test_the_same_decoder_of_a_model_elsewhere_has_the_same_bytes(
    saved: tuple[Decoder, Path], tmp_path: Path
) -> None:
    decoder, folder = saved
    (tmp_path / "me").mkdir()
    moved = shutil.copytree(decoders.model().source, tmp_path / "me" / decoders.model().source.name)
    other = load(folder, resolve_model(str(moved)))
    other.binding = Binding(
        read_layer=2, target=decoder.binding.target, model=str(moved), adapter=None
    )
    (tmp_path / "other").mkdir()
    other.save(tmp_path / "other")
    assert stores.contents(tmp_path / "other") == stores.contents(folder)


def test_no_path_of_this_machine_is_in_any_saved_file(tmp_path: Path) -> None:
    decoder = decoders.make()
    decoder.binding = Binding(
        read_layer=2,
        target=decoder.binding.target,
        model=decoder.binding.model,
        adapter=str(tmp_path / "own-adapter"),
    )
    (tmp_path / "decoder").mkdir()
    decoder.save(tmp_path / "decoder")
    assert read_sidecar(tmp_path / "decoder")[1].adapter == "own-adapter"
    for name, content in stores.contents(tmp_path / "decoder").items():
        for path in (str(decoders.model().source.parent), str(tmp_path), str(Path.home())):
            assert path.encode() not in content, name


def test_the_folder_holds_an_adapter_and_our_record(saved: tuple[Decoder, Path]) -> None:
    assert sorted(stores.contents(saved[1])) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        SIDECAR,
    ]


def test_peft_alone_loads_it(saved: tuple[Decoder, Path]) -> None:
    from peft import PeftModel

    decoder, folder = saved
    net = PeftModel.from_pretrained(tiny.model(), folder)
    with torch.no_grad():
        torch.testing.assert_close(net(IDS).logits, decoder.net(IDS).logits)


def test_another_target_is_refused_with_both_sides(
    saved: tuple[Decoder, Path], tmp_path: Path
) -> None:
    _, folder = saved
    other = decoders.model(seed=1)
    with pytest.raises(StoreError) as caught:
        load(folder, other)
    text = str(caught.value)
    assert decoders.model().digests()["weights"][:24] in text
    assert other.digests()["weights"][:24] in text
    assert "Give the decoder's own target, or train a new one." in text
    assert "\n" not in text


def test_another_chat_template_is_another_target(
    saved: tuple[Decoder, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(decoders.model().source, tmp_path / "other")
    (other / "chat_template.jinja").write_text(tiny.QWEN3)
    with pytest.raises(StoreError, match="whose chat_template is"):
        load(saved[1], resolve_model(str(other)))


def test_a_folder_without_a_decoder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ModelError, match=r"no decoder is here \(no latentqa.json\)"):
            load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: None,
        lambda value: [],
        lambda value: {**value, "schema": 99},
        lambda value: {k: v for k, v in value.items() if k != "decoder"},
        lambda value: {k: v for k, v in value.items() if k != "target"},
        lambda value: {**value, "decoder": {"write_layer": -4}},
        lambda value: {**value, "extra": 1},
    ],
)
def test_a_record_of_another_form_is_one_line(
    change: Callable[[Any], Any], saved: tuple[Decoder, Path]
) -> None:
    path = saved[1] / SIDECAR
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ModelError, match="not the record of a decoder") as caught:
        load(saved[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [stores.truncate, Path.unlink])
def test_broken_adapter_weights_are_one_line(
    damage: Callable[[Path], object], saved: tuple[Decoder, Path]
) -> None:
    damage(saved[1] / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="peft cannot load it") as caught:
        load(saved[1])
    assert "\n" not in str(caught.value)


def test_a_write_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"blocks 0 to 3, got 4. Change .*decoder.write_layer"):
        decoders.make(write_layer=4)


def test_linear_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ModelError, match=r"train.lora: .*nowhere"):
        decoders.make(lora=LoraSettings(targets=("nowhere",)))
