"""Which layers a reader can be asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chain
import pytest

from core.errors import ConfigError
from pipelines.asking.reader import Reader


def reader(folder: Path, **config: Any) -> Reader:
    made = chain.make(folder, chain.rows_of(splits={"train": 1}))
    return Reader("toy", chain.decoder(made, **config))


def test_a_decoder_of_one_layer_reads_any_block(tmp_path: Path) -> None:
    assert reader(tmp_path).layers(0).layers == (0,)


def test_no_layer_of_concatenated_ones_can_be_named(tmp_path: Path) -> None:
    several = reader(tmp_path, read_layers=(0, chain.LAYER), combine="concatenated")
    assert several.layers().layers == (0, chain.LAYER)
    with pytest.raises(ConfigError, match="together"):
        several.layers(0)
