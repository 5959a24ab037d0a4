"""The statistics that a decoder normalises with are those of its training tokens."""

from __future__ import annotations

from pathlib import Path

import chain
import numpy as np
import pytest
import torch

from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.reading import Reading
from trainers.config import TrainConfig
from trainers.normalisation import measure_placeholder_length, measure_statistics
from trainers.rows import load_rows, read_row
from trainers.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("chain"), chain.rows_of(("system",)))


def test_they_are_taken_from_visible_tokens_alone(made: chain.Chain) -> None:
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    own = [r for r in rows if r.conversation.split == "train"]
    found = measure_statistics(chain.decoder(made), store, own, TrainConfig())
    readings = [read_row(store, row, chain.LAYER, masking=True).vectors for row in own]
    visible = np.concatenate([vectors for vectors in readings if vectors is not None])
    np.testing.assert_allclose(found.mean[0], visible.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.deviation[0], visible.std(0), rtol=1e-3, atol=1e-5)


def test_the_placeholder_is_measured_where_activations_enter(made: chain.Chain) -> None:
    decoder = chain.decoder(made)
    prefix = decoder.prompt.prefix(Reading(None, 16, 0))
    with decoder.without_adapter():
        kept = Capture(decoder.net.get_base_model(), [0])([prefix.ids])
    expected = kept[0][0][torch.from_numpy(prefix.places)].norm(dim=-1).mean().item()
    assert measure_placeholder_length(decoder) == pytest.approx(expected, rel=1e-5)


def test_a_trained_decoder_loads_with_its_statistics(made: chain.Chain, tmp_path: Path) -> None:
    config = TrainConfig(
        decoder=DecoderConfig(normalisation="standardise"),
        views=("system",),
        max_steps=1,
        evaluations=1,
    )
    train(*made.places(tmp_path), config=config, runtime=chain.RUNTIME)
    loaded = Decoder.load(tmp_path / "out", made.model, dtype="float32", device=torch.device("cpu"))
    normaliser = loaded.injection.normaliser
    assert normaliser is not None
    assert normaliser.how == "standardise"
    assert np.isfinite(normaliser.statistics.mean).all()


def test_a_decoder_without_its_statistics_does_not_run(made: chain.Chain) -> None:
    with pytest.raises(RuntimeError, match="use_statistics"):
        _ = chain.decoder(made, normalisation="standardise").injection
