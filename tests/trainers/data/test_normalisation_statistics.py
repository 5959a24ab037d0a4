"""The statistics that a decoder normalises with are those of its training tokens."""

from __future__ import annotations

from pathlib import Path

import chain
import numpy as np
import pytest
import torch

from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture
from core.errors import DataError
from decoder.config import DecoderConfig
from decoder.model import Decoder
from decoder.normalisation import ActivationStatistics
from decoder.reading import Reading
from trainers.config import TrainConfig
from trainers.data.normalisation import measure_placeholder_length, measure_statistics
from trainers.data.rows import Row, load_rows, read_row
from trainers.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    return chain.make(tmp_path_factory.mktemp("chain"), chain.rows_of(("system",)))


def training_rows(made: chain.Chain) -> tuple[ActivationStore, list[Row]]:
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    return store, [row for row in rows if row.conversation.split == "train"]


def test_they_are_taken_from_visible_tokens_alone(made: chain.Chain) -> None:
    store, own = training_rows(made)
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
    loaded = Decoder.load(tmp_path / "out", made.model, "float32", chain.RUNTIME)
    normaliser = loaded.injection.normaliser
    assert normaliser is not None
    assert normaliser.how == "standardise"
    assert np.isfinite(normaliser.statistics.mean).all()


def test_a_decoder_without_its_statistics_does_not_run(made: chain.Chain) -> None:
    with pytest.raises(RuntimeError, match="use_statistics"):
        _ = chain.decoder(made, normalisation="standardise").injection


def test_the_filter_is_taken_from_texts_that_begin_alike(made: chain.Chain) -> None:
    store, own = training_rows(made)
    config = TrainConfig(decoder=DecoderConfig(normalisation="wiener"))
    found = measure_statistics(chain.decoder(made), store, own, config)
    # by hand: token by token, what differs from the mean of the same beginning
    alike: dict[bytes, list[np.ndarray]] = {}
    for row in own:
        place = store.place(row.example_id)
        ids = store.tokens(row.example_id)[place.withheld :]
        vectors = store.read_layers(row.example_id, (chain.LAYER,))[0][place.withheld :]
        for end, vector in enumerate(vectors, 1):
            alike.setdefault(ids[:end].tobytes(), []).append((vector - found.mean[0]).astype(float))
    groups = [np.stack(group) for group in alike.values() if len(group) > 1]
    every = np.concatenate([np.stack(group) for group in alike.values()])
    apart = np.concatenate([group - group.mean(0) for group in groups])
    changes = apart.T @ apart / sum(len(group) - 1 for group in groups)
    expected = found.with_filter((every.T @ every / len(every))[None], changes[None]).filter
    assert found.filter is not None
    assert expected is not None
    assert len({len(group) for group in groups}) > 1
    np.testing.assert_allclose(found.filter, expected, atol=1e-5)


def test_swapped_rows_give_a_filter_where_no_stimulus_is_shared(tmp_path: Path) -> None:
    made = chain.make(tmp_path, chain.rows_of(("system",)), swapped=("train",))
    config = TrainConfig(
        decoder=DecoderConfig(normalisation="wiener"),
        views=("system",),
        max_steps=1,
        max_rows=1,
        evaluations=1,
    )
    train(*made.places(tmp_path), config=config, runtime=chain.RUNTIME)
    assert ActivationStatistics.load(tmp_path / "out").filter is not None


def test_texts_that_never_begin_alike_give_no_filter(tmp_path: Path) -> None:
    made = chain.make(tmp_path, chain.rows_of(("control",)))
    store, own = training_rows(made)
    config = TrainConfig(decoder=DecoderConfig(normalisation="wiener"))
    with pytest.raises(DataError, match="begin alike under several controls"):
        measure_statistics(chain.decoder(made), store, own[:1], config)


def test_discriminants_are_taken_from_the_means_of_controls(made: chain.Chain) -> None:
    store, own = training_rows(made)
    config = TrainConfig(decoder=DecoderConfig(normalisation="discriminant"))
    found = measure_statistics(chain.decoder(made), store, own, config)
    by_control: dict[str, list[np.ndarray]] = {}
    for row in own:
        vectors = read_row(store, row, chain.LAYER, masking=True).vectors
        assert vectors is not None
        moved = (np.asarray(vectors) - found.mean[0]).astype(float)
        by_control.setdefault(row.conversation.control_id, []).append(moved)
    groups = [np.concatenate(own) for own in by_control.values()]
    every = np.concatenate(groups)
    squares = [len(g) * np.outer(g.mean(0), g.mean(0)) for g in groups]
    between = np.sum(squares, 0) / len(every)
    expected = found.with_filter((every.T @ every / len(every))[None], between[None])
    assert found.filter is not None
    assert expected.filter is not None
    np.testing.assert_allclose(found.filter, expected.filter, atol=1e-5)
    assert found.changes is not None
    assert np.linalg.matrix_rank(found.changes[0], tol=1e-4) < len(groups)


def test_one_control_has_no_discriminants(made: chain.Chain) -> None:
    store, own = training_rows(made)
    config = TrainConfig(decoder=DecoderConfig(normalisation="discriminant"))
    with pytest.raises(DataError, match="the training rows have 1"):
        measure_statistics(chain.decoder(made), store, own[:1], config)
