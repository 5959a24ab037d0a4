"""Training without a store: the target runs when a row is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chain
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from activation_store.layout.config import CaptureConfig
from activation_store.read.reader import ActivationStore
from core.errors import DataError, StoreError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import View
from decoder.config import LoraSettings
from decoder.sources.live import LiveActivations
from decoder.visible_tokens import ReadLayers, read_visible
from trainers.config import TrainConfig
from trainers.training import train

VIEWS: tuple[View, ...] = ("control", "system")
CONFIG = TrainConfig(
    lora=LoraSettings(rank=4, dropout=0.1),
    views=VIEWS,
    rows_per_batch=4,
    max_steps=4,
    evaluations=2,
    learning_rate=1e-2,
    precision="float32",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(VIEWS, {"train": 8, "validation": 2})
    return chain.make(tmp_path_factory.mktemp("chain"), rows)


def run(made: chain.Chain, folder: Path, store: Path | None) -> list[dict[str, Any]]:
    capture = None if store else chain.CAPTURE
    places = made.places(folder, store=store, capture=capture)
    train(*places, config=CONFIG, runtime=chain.RUNTIME)
    return chain.log(folder)


def live(made: chain.Chain, **changes: Any) -> LiveActivations:
    rows = read_conversations(made.conversations / CONVERSATIONS_FILE)
    capture = CaptureConfig.model_validate({**chain.CAPTURE.model_dump(), **changes})
    return LiveActivations(made.model, rows, capture)


def test_the_loss_is_that_of_training_from_a_store(made: chain.Chain, tmp_path: Path) -> None:
    stored, flying = run(made, tmp_path / "a", made.store), run(made, tmp_path / "b", None)
    assert [line["step"] for line in stored] == [line["step"] for line in flying]
    for one, other in zip(stored, flying, strict=True):
        if "loss" in one:
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        else:
            assert other["validation"]["right"] == pytest.approx(
                one["validation"]["right"], rel=1e-4
            )
    a, b = (load_file(tmp_path / name / "out" / "adapter_model.safetensors") for name in "ab")
    for name, values in a.items():
        torch.testing.assert_close(b[name], values, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_is_what_a_store_would_hold(
    made: chain.Chain, tmp_path: Path, dtype: str
) -> None:
    rows = chain.rows_of(VIEWS, {"train": 2})
    own = chain.make(tmp_path / "own", rows, store_dtype=dtype)
    store, source = ActivationStore(own.store), live(own, store_dtype=dtype)
    decoder = chain.decoder(own, nudge=0.3)  # a trained adapter must not show
    decoder.net.train()
    source.attach_decoder(decoder)
    for example in store.index:
        kept, (read,) = (
            store.read(example, chain.LAYER),
            source.read_layers(example, (chain.LAYER,)),
        )
        # a last bit of bfloat16 may fall to the other side
        np.testing.assert_allclose(read, kept, rtol=1e-5 if dtype == "float32" else 1e-2, atol=1e-5)
        assert source.place(example).withheld == store.place(example).withheld
    assert decoder.net.training
    assert not any(module._forward_hooks for module in decoder.net.modules())


def test_the_target_runs_once_a_reading_whatever_was_read_before(
    made: chain.Chain,
) -> None:
    source, decoder = live(made, layers=(0, 2)), chain.decoder(made)
    source.attach_decoder(decoder)
    runs: list[torch.Tensor] = []
    embeddings = decoder.net.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, args, output: runs.append(output))
    row = read_conversations(made.conversations / CONVERSATIONS_FILE)[0]
    # as a row that is the last of an epoch and the first of the next, with another layer drawn
    for layers in ((0,), (2,), (0, 2), (2, 0)):
        read_visible(source, row.example_id, row.view, ReadLayers(layers), masking=True)
    assert len(runs) == 4


def test_rows_that_a_dump_would_drop_are_not_there(made: chain.Chain) -> None:
    lengths = {e: p.n_tokens for e, p in ActivationStore(made.store).index.items()}
    most = max(lengths.values()) - 1
    source = live(made, max_tokens=most)
    assert {e for e in lengths if e in source} == {e for e, n in lengths.items() if n <= most}
    with pytest.raises(DataError, match="example nobody is not among"):
        source.place("nobody")


def test_a_layer_that_is_not_captured_is_refused(made: chain.Chain) -> None:
    with pytest.raises(StoreError, match=r"dump.layers is \[2\], got .* 1"):
        live(made).only_layer(1)
    with pytest.raises(StoreError, match=r"dump.layers is \[0, 2\], got .* None"):
        live(made, layers=(0, 2)).only_layer(None)
