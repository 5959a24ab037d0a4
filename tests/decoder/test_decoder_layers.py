"""A decoder that reads several layers: which, how they are named, and that it keeps to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import stores
from pydantic import ValidationError

from activation_store.read.reader import ActivationStore
from core.errors import ConfigError
from core.records.tables import Message
from core.runtime import Runtime
from decoder.asking import generate_answers
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.visible_tokens import ReadLayers, draw_row_layers, read_visible

SAID = (Message(role="user", content="You are a pirate.", segment="control"),)


def text(decoder: Decoder, reading: Reading) -> str:
    prefix = decoder.prompt.prefix(reading)
    return str(decoder.tokenizer.decode(prefix.ids))


def test_a_sampled_layer_is_named_and_any_can_be_asked() -> None:
    decoder = decoders.make(read_layers=[2, 0])
    first = decoders.capture_reading(decoder, SAID, view="control")
    other = decoders.capture_reading(decoder, SAID, view="control", layer=0)
    assert (first.layers, other.layers) == ((2,), (0,))
    assert "\nLayer 2: ????" in text(decoder, first)
    assert "\nLayer 0: ????" in text(decoder, other)
    assert first.vectors is not None
    assert other.vectors is not None
    assert not np.allclose(first.vectors, other.vectors)


def test_layers_together_are_one_run_each() -> None:
    decoder = decoders.make(read_layers=[0, 2], combine="concatenated")
    both = decoders.capture_reading(decoder, SAID, view="control")
    alone = decoders.make(read_layers=[0, 2])
    parts = [decoders.capture_reading(alone, SAID, view="control", layer=k) for k in (0, 2)]
    assert both.layers == (0, 2)
    assert both.size == 2 * both.n
    np.testing.assert_array_equal(both.vectors, np.concatenate([p.vectors for p in parts]))
    marks = "?" * both.n
    assert f"Layer 0: {marks}\nLayer 2: {marks}<" in text(decoder, both)


def test_one_layer_is_not_named() -> None:
    decoder = decoders.make()
    reading = decoders.capture_reading(decoder, SAID, view="control")
    assert reading.layers == ()
    assert "Layer" not in text(decoder, reading)


@pytest.mark.parametrize(
    ("config", "layer", "message"),
    [
        ({}, 0, r"layer 0: the decoder reads \[2\]; name one of them"),
        ({"read_layers": [0, 2]}, 1, r"layer 1: the decoder reads \[0, 2\]"),
        ({"read_layers": [0, 2], "combine": "concatenated"}, 0, "together; name none"),
    ],
)
def test_a_layer_that_it_does_not_read_is_refused(
    config: dict[str, Any], layer: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decoders.make(**config).select_layers(layer)


def test_a_row_draws_its_layer_by_seed_and_id() -> None:
    config = DecoderConfig(read_layers=(7, 14, 21))
    drawn = [draw_row_layers(config, 7, str(i), seed=0) for i in range(300)]
    assert drawn == [draw_row_layers(config, 7, str(i), seed=0) for i in range(300)]
    assert drawn != [draw_row_layers(config, 7, str(i), seed=1) for i in range(300)]
    counts = Counter(layers.layers for layers in drawn)
    assert set(counts) == {(7,), (14,), (21,)}
    assert min(counts.values()) > 70


def test_a_row_draws_its_layer_anew_in_each_pass() -> None:
    config = DecoderConfig(read_layers=(7, 14, 21))

    def drawn(epoch: int) -> list[tuple[int, ...]]:
        ids = map(str, range(300))
        return [draw_row_layers(config, 7, one, seed=0, epoch=epoch).layers for one in ids]

    assert drawn(0) == [draw_row_layers(config, 7, str(i), seed=0).layers for i in range(300)]
    for first, second in ((0, 1), (1, 2)):
        same = sum(a == b for a, b in zip(drawn(first), drawn(second), strict=True))
        assert 60 < same < 140  # a third, by chance
    concatenated = config.model_copy(update={"combine": "concatenated"})
    assert draw_row_layers(concatenated, 7, "a", seed=0, epoch=3).layers == (7, 14, 21)


def test_a_stored_reading_is_what_is_captured(tmp_path: Path) -> None:
    rows = stores.table(tmp_path / "rows", stores.conversations(1))
    (tmp_path / "store").mkdir()
    stores.fill(rows, tmp_path / "store", decoders.model(), layers=[0, 2], store_dtype="float32")
    store = ActivationStore(tmp_path / "store")
    decoder = decoders.make(read_layers=[2, 0], combine="concatenated")
    for row in stores.conversations(1):
        live = decoders.capture_reading(decoder, row.messages, view=row.view)
        kept = read_visible(
            store, row.example_id, row.view, ReadLayers((2, 0), named=True), masking=True
        )
        assert (live.n, live.first_position, live.layers) == (
            kept.n,
            kept.first_position,
            kept.layers,
        )
        assert live.vectors is not None
        assert kept.vectors is not None
        np.testing.assert_allclose(live.vectors, kept.vectors, rtol=1e-5, atol=1e-5)


def test_the_layers_are_saved_with_the_adapter(tmp_path: Path) -> None:
    decoder = decoders.make(read_layers=[2, 0], combine="concatenated")
    decoder.save(tmp_path)
    again = Decoder.load(tmp_path, decoders.model(), "float32", Runtime(device="cpu"))
    assert again.select_layers() == ReadLayers((2, 0), named=True)
    readings = [decoders.capture_reading(each, SAID, view="control") for each in (decoder, again)]
    found = [
        generate_answers(d, [r], ["Who?"]) for d, r in zip((decoder, again), readings, strict=True)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("config", [{"read_layers": [1, 1]}, {"read_layers": [1], "read_layer": 1}])
def test_layers_that_contradict_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DecoderConfig.model_validate(config)
