"""Activations are normalised with statistics of training tokens, and gradients pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import ModelError
from decoder.config import Normalisation
from decoder.injection import Injection
from decoder.normalisation import FILTERS, STATISTICS_FILE, ActivationStatistics, Normaliser
from decoder.reading import UNNAMED_LAYER

CPU = torch.device("cpu")


def tokens(n: int = 400) -> np.ndarray:
    """[2, n, 8]: two layers whose features differ in mean and spread."""
    draw = np.random.default_rng(0)
    spread = np.array([1, 1, 1, 1, 1, 1, 50, 0.1])
    layers = [draw.normal(size=(n, 8)) * spread + mean for mean in (0.0, 30.0)]
    return np.stack(layers).astype(np.float32)


def statistics() -> ActivationStatistics:
    both = tokens()
    return ActivationStatistics.measure([both[:, :100], both[:, 100:]], length=3.0)


def test_statistics_over_pieces_are_those_of_all_tokens() -> None:
    both = tokens()
    found = statistics()
    np.testing.assert_allclose(found.mean, both.mean(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.deviation, both.std(1), rtol=1e-4)


def test_a_feature_that_never_changes_does_not_blow_up() -> None:
    found = ActivationStatistics.measure([np.ones((1, 5, 3), np.float32)], length=1.0)
    out = Normaliser("standardise", found, (5,), CPU)(
        torch.ones(2, 3), torch.full((2,), UNNAMED_LAYER)
    )
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("how", ["length", "centre", "standardise"])
def test_every_vector_gets_the_length_of_what_it_replaces(how: Normalisation) -> None:
    vectors = torch.from_numpy(tokens()[0, :20])
    out = Normaliser(how, statistics(), (3, 7), CPU)(vectors, torch.full((20,), 3))
    assert out.norm(dim=-1).tolist() == pytest.approx([3.0] * 20, rel=1e-5)


def test_each_layer_has_its_own_statistics() -> None:
    both = tokens()
    vectors = torch.from_numpy(np.concatenate([both[0], both[1]]))
    layer = torch.tensor([3, 7]).repeat_interleave(len(both[0]))
    out = Normaliser("standardise", statistics(), (3, 7), CPU)(vectors, layer)
    assert out[layer == 3].mean(0).abs().max() < 0.2
    assert out[layer == 7].mean(0).abs().max() < 0.2


def test_standardised_features_weigh_alike() -> None:
    vectors = torch.from_numpy(tokens()[0])
    layer = torch.full((len(vectors),), 3)
    spread = Normaliser("standardise", statistics(), (3, 7), CPU)(vectors, layer).std(0)
    assert spread.max() / spread.min() < 1.5


def test_the_filter_keeps_what_a_control_changes_of_what_a_text_does() -> None:
    # a control moves feature 0 by one unit, texts move all features by as much
    draw = np.random.default_rng(0)
    changes, texts = draw.choice([-1.0, 1.0], size=2000), draw.normal(size=(2000, 8))
    control, covariance = np.zeros((1, 8, 8)), np.eye(8)[None]
    control[0, 0, 0], covariance[0, 0, 0] = 1.0, 2.0
    both = texts.astype(np.float32)
    both[:, 0] += changes
    measured = ActivationStatistics.measure([both[None]], length=1.0)
    filtered = Normaliser("wiener", measured.with_filter(covariance, control), (3,), CPU)
    out = filtered(torch.from_numpy(both), torch.full((2000,), 3)).numpy()
    assert np.abs(out[:, 1:]).max() < 1e-3
    assert np.abs(np.corrcoef(out[:, 0], changes)[0, 1]) > 0.6


def test_the_filter_is_the_best_linear_estimate() -> None:
    draw = np.random.default_rng(0)
    control = draw.normal(size=(20_000, 3)) @ draw.normal(size=(3, 6))
    seen = control + draw.normal(size=(20_000, 6)) @ draw.normal(size=(6, 6))
    measured = ActivationStatistics.measure([seen[None].astype(np.float32)], length=1.0)
    covariances = np.cov(seen.T, bias=True)[None], np.cov(control.T, bias=True)[None]
    found = measured.with_filter(*covariances).filter
    assert found is not None
    unit = measured.deviation[0]
    standard = (seen - measured.mean[0]) / unit
    # ridge regression of the control on what is seen, with the filter's own ridge
    gram = standard.T @ standard / len(seen) + 0.1 * np.eye(6)
    expected = np.linalg.solve(gram, standard.T @ (control / unit) / len(seen)).T
    assert np.abs(found[0] - expected).max() < 0.03


def test_each_layer_has_its_own_filter() -> None:
    both = statistics()
    eye = np.eye(8)[None]
    unit = both.deviation[:, :, None] * both.deviation[:, None, :]
    only = np.zeros((2, 8, 8))
    only[0, 2, 2] = only[1, 5, 5] = 1.0
    normalise = Normaliser("wiener", both.with_filter(unit * eye, unit * only), (3, 7), CPU)
    vectors = torch.from_numpy(tokens()[0, :4])
    for layer, feature in ((3, 2), (7, 5)):
        out = normalise(vectors, torch.full((4,), layer))
        out[:, feature] = 0
        assert not out.any()


@pytest.mark.parametrize("how", FILTERS)
def test_estimates_are_as_long_as_what_they_replace_on_average(how: Normalisation) -> None:
    seen = tokens(4000)[:1]
    measured = ActivationStatistics.measure([seen], length=3.0)
    filtered = measured.with_filter(np.cov(seen[0].T)[None], np.cov(seen[0].T)[None])
    out = Normaliser(how, filtered, (3,), CPU)(torch.from_numpy(seen[0]), torch.full((4000,), 3))
    assert float(out.square().sum(-1).mean().sqrt()) == pytest.approx(3.0, rel=0.01)


def test_none_gives_the_very_bits() -> None:
    vectors = torch.from_numpy(tokens()[0])
    out = Normaliser("none", statistics(), (3, 7), CPU)(
        vectors, torch.zeros(len(vectors), dtype=torch.long)
    )
    assert out is vectors


def test_gradients_pass() -> None:
    vectors = torch.from_numpy(tokens()[0, :3]).double().requires_grad_()
    normalise = Normaliser("standardise", statistics(), (3, 7), CPU)
    layer = torch.full((3,), 3)
    torch.autograd.backward(normalise(vectors, layer)[:, 0].sum())
    gradient = vectors.grad
    assert gradient is not None
    step = torch.zeros_like(vectors)
    step[1, 2] = 1e-2
    with torch.no_grad():
        up, down = (normalise(vectors + s, layer)[:, 0].sum() for s in (step, -step))
    assert gradient[1, 2].item() == pytest.approx(((up - down) / 2e-2).item(), rel=2e-2)


def test_saved_statistics_come_back(tmp_path: Path) -> None:
    statistics().save(tmp_path)
    found = ActivationStatistics.load(tmp_path)
    assert np.array_equal(found.mean, statistics().mean)
    assert np.array_equal(found.deviation, statistics().deviation)
    assert found.length == 3.0
    assert found.filter is None


def test_a_saved_filter_comes_back(tmp_path: Path) -> None:
    both = statistics()
    made = both.with_filter(np.stack([np.eye(8)] * 2), np.stack([np.diag(np.arange(8.0))] * 2))
    made.save(tmp_path)
    found = ActivationStatistics.load(tmp_path).filter
    assert made.filter is not None
    assert found is not None
    assert np.array_equal(found, made.filter)


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_statistics_that_cannot_be_read_are_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / STATISTICS_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"normalisation.safetensors: no statistics .* whole"):
        ActivationStatistics.load(tmp_path)


def test_no_token_is_an_error() -> None:
    with pytest.raises(ValueError, match="no token"):
        ActivationStatistics.measure([], length=1.0)


def test_noise_is_as_long_as_its_share_of_what_enters() -> None:
    entered: list[torch.Tensor] = []
    block = torch.nn.Identity()
    vectors, places = torch.full((2000, 64), 3.0), torch.arange(2000)
    torch.manual_seed(0)
    with Injection(block, noise=0.5)(places, vectors):
        entered.append(block(torch.zeros(1, 2000, 64))[0])
    noise = entered[0] - vectors
    assert float(noise.norm(dim=-1).mean() / vectors.norm(dim=-1).mean()) == pytest.approx(
        0.5, rel=0.02
    )
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
