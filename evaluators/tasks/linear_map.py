"""A linear map from one model's activations to another's, fitted on texts that both have read.

Shapes: N pairs of tokens, D d_model of the source, E d_model of the decoder's own target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from activation_store.target.capture import Capture
from activation_store.tokens.tokens import encode_plain_text
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork

_PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
_BATCH = 32


@dataclass(frozen=True, slots=True)
class TextActivations:
    """One model's activations of a text, up to the end of its subject.

    Attributes:
        vectors: [T, D] float32, without the token that begins a text.
        stops: [T] where each token ends in the text, in characters.
    """

    vectors: np.ndarray
    stops: np.ndarray


class LinearMap:
    """Ridge regression between standardised activations of two models.

    Attributes:
        penalty: of the squared weights, chosen by the held-out pairs.
        error: of the held-out pairs: squared distance to the truth, as a share of the truth's own
            squared distance to its mean; 1 is no better than that mean.
    """

    def __init__(
        self,
        source_ND: np.ndarray,
        target_NE: np.ndarray,
        held_out: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Fit the ridge map.

        Args:
            source_ND: activations of the source model.
            target_NE: those of the decoder's target at the same places.
            held_out: a source and a target array of other texts.
        """
        found = [
            (_relative_error(model.predict(held_out[0]), held_out[1]), penalty, model)
            for penalty in _PENALTIES
            for model in [_fit(source_ND, target_NE, penalty)]
        ]
        self.error, self.penalty, self._model = min(found, key=lambda one: one[0])

    def __call__(self, source_nD: np.ndarray) -> np.ndarray:
        """Map activations [n, D] to [n, E] float32."""
        mapped: np.ndarray = self._model.predict(source_nD).astype(np.float32)
        return mapped


def _fit(source_ND: np.ndarray, target_NE: np.ndarray, penalty: float) -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha=penalty)).fit(source_ND, target_NE)


def _relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    spread = float(np.square(truth - truth.mean(0)).sum())
    return float(np.square(found - truth).sum()) / max(spread, 1e-12)


def pair_tokens(
    source: Sequence[TextActivations], target: Sequence[TextActivations]
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the activations of two models at places where a token of both ends.

    Args:
        source: of texts.
        target: of the same texts.

    Returns:
        Two arrays with a row a pair.
    """
    pairs = []
    for one, other in zip(source, target, strict=True):
        _, mine, theirs = np.intersect1d(one.stops, other.stops, return_indices=True)
        pairs.append((one.vectors[mine], other.vectors[theirs]))
    return tuple(np.concatenate(each) for each in zip(*pairs, strict=True))  # type: ignore[return-value]


@torch.inference_mode()
def read_texts(network: TargetNetwork, texts: Sequence[str], layer: int) -> list[TextActivations]:
    """Run a model on raw texts, and return its activations at a block."""
    run = Capture(network.net, (layer,))
    out: list[TextActivations] = []
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        encoded = [encode_plain_text(network.tokenizer, text) for text in part]
        found = run([own.ids for own in encoded])[layer].float().cpu().numpy()
        for row, own in enumerate(encoded):
            first = int(own.stops[0] == 0)  # the token that begins a text ends nowhere in it
            vectors = found[row, first : len(own.ids)]
            out.append(TextActivations(vectors, own.stops[first:]))
    return out


def own_network(decoder: Decoder) -> TargetNetwork:
    """Return the decoder's own target; its adapter has to be off while it runs."""
    return TargetNetwork(decoder.net.get_base_model(), decoder.tokenizer)
