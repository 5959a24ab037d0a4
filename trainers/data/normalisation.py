"""Statistics of the training tokens, by which a decoder normalises what it reads.

Shapes: L layers that a decoder reads, T visible tokens of a row, D d_model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from activation_store.target.capture import without_look
from core.errors import DataError
from decoder.model import Decoder
from decoder.normalisation import FILTERS, ActivationStatistics
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource
from trainers.config import TrainConfig
from trainers.data.rows import Row, count_visible_tokens

_MOST_ROWS = 1024
"""Rows are drawn by hash of their ids already, so that the first of them are a sample."""
_PLACEHOLDERS = 16


def measure_statistics(
    decoder: Decoder,
    activations: ActivationSource,
    rows: Sequence[Row],
    config: TrainConfig,
    swapped: Mapping[str, str] | None = None,
) -> ActivationStatistics:
    """Measure what the decoder's normalisation needs, over the visible tokens of training rows.

    All processes of a training measure the same. At most 1,024 rows are read.

    Args:
        decoder: the decoder, for its layers and the length of what activations replace.
        activations: source of the rows' activations.
        rows: training rows.
        config: how activations are normalised, and whether the control's own tokens are withheld.
        swapped: by example id of a row, that of its visible text under another control; `wiener`
            learns from both.

    Raises:
        DataError: normalisation `wiener`, and no visible text begins alike under two controls; or
            `discriminant`, and there are fewer than two controls.
    """
    texts = [_Text(row, row.example_id) for row in rows[:_MOST_ROWS]]
    masking, length = config.decoder.masking, measure_placeholder_length(decoder)
    seen = _VisibleTokens(decoder, activations, texts, masking)
    found = ActivationStatistics.measure(seen.activations(), length=length)
    if config.decoder.normalisation not in FILTERS:
        return found
    if config.decoder.normalisation == "discriminant":
        return found.with_filter(*_measure_between_controls(seen, found.mean))
    swaps = swapped or {}
    others = [_Text(row, swaps[own]) for row, own in texts if own in swaps]
    seen = _VisibleTokens(decoder, activations, texts + others, masking)
    return found.with_filter(*_measure_covariances(seen, found.mean))


class _Text(NamedTuple):
    """A row, and the example whose activations are those of its visible text."""

    row: Row
    example_id: str


class _VisibleTokens:
    """The visible tokens of rows, with their activations at the layers that a decoder reads."""

    def __init__(
        self, decoder: Decoder, source: ActivationSource, texts: Sequence[_Text], masking: bool
    ) -> None:
        self._layers, self._source, self._texts = decoder.layers, source, texts
        self._counts = [count_visible_tokens(source, t.row, masking=masking) for t in texts]

    def activations(self) -> Iterator[np.ndarray]:
        """Read the activations [L, T, D] of each row."""
        for text, count in zip(self._texts, self._counts, strict=True):
            layers = self._source.read_layers(text.example_id, self._layers)
            yield np.stack([layer[-count:] for layer in layers])

    def controls(self) -> list[str]:
        """Name the control of each row."""
        return [text.row.conversation.control_id for text in self._texts]

    def beginnings(self) -> list[list[bytes]]:
        """Name, for each token of each row, its view and the visible text up to it."""
        found = []
        for text, count in zip(self._texts, self._counts, strict=True):
            running = hashlib.sha256(text.row.conversation.view.encode())
            own = []
            for token in np.asarray(self._source.tokens(text.example_id)[-count:], np.int64):
                running.update(token.tobytes())
                own.append(running.digest())
            found.append(own)
        return found


def _measure_covariances(
    seen: _VisibleTokens, mean_LD: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the covariance of all activations, and of those of one visible text about their mean.

    Returns:
        Two arrays [L, D, D] float64.
    """
    beginnings = seen.beginnings()
    counts = Counter(name for own in beginnings for name in own)
    rows_of = {name: place for place, name in enumerate(n for n, k in counts.items() if k > 1)}
    freedom = sum(counts[name] - 1 for name in rows_of)
    if not freedom:
        raise DataError(
            "train.decoder.normalisation: `wiener` learns what controls change from visible texts "
            "that begin alike under several controls, and no two training rows do. Generate "
            "stimuli that controls share (`stimuli` of the kind), put `train` into dump.swapped, "
            "or take `standardise`."
        )
    tokens, sums_LGD = 0, np.zeros((len(mean_LD), len(rows_of), mean_LD.shape[1]))
    total_LDD = np.zeros((*mean_LD.shape, mean_LD.shape[1]))
    shared_LDD = np.zeros_like(total_LDD)
    for vectors_LTD, own in zip(seen.activations(), beginnings, strict=True):
        moved_LTD = vectors_LTD.astype(np.float64) - mean_LD[:, None]
        tokens += moved_LTD.shape[1]
        total_LDD += moved_LTD.transpose(0, 2, 1) @ moved_LTD
        kept = [place for place, name in enumerate(own) if name in rows_of]
        part_LKD = moved_LTD[:, kept]
        shared_LDD += part_LKD.transpose(0, 2, 1) @ part_LKD
        sums_LGD[:, [rows_of[own[place]] for place in kept]] += part_LKD
    sizes_G = np.array([counts[name] for name in rows_of])
    means_LGD = sums_LGD / sizes_G[:, None]
    between_LDD = means_LGD.transpose(0, 2, 1) @ (means_LGD * sizes_G[:, None])
    return total_LDD / tokens, (shared_LDD - between_LDD) / freedom


def _measure_between_controls(
    seen: _VisibleTokens, mean_LD: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the covariance of all activations, and that of the controls' means.

    Returns:
        Two arrays [L, D, D] float64.
    """
    tokens, total_LDD = 0, np.zeros((*mean_LD.shape, mean_LD.shape[1]))
    sums: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    for vectors_LTD, control in zip(seen.activations(), seen.controls(), strict=True):
        moved_LTD = vectors_LTD.astype(np.float64) - mean_LD[:, None]
        tokens += moved_LTD.shape[1]
        total_LDD += moved_LTD.transpose(0, 2, 1) @ moved_LTD
        counts[control] += moved_LTD.shape[1]
        sums[control] = sums.get(control, 0) + moved_LTD.sum(1)
    if len(sums) < 2:
        raise DataError(
            "train.decoder.normalisation: `discriminant` learns from what tells controls apart, "
            f"and the training rows have {len(sums)}. Take more, or `standardise`."
        )
    means_LGD = np.stack([sums[control] / counts[control] for control in sums], 1)
    shares_G1 = np.array([counts[control] / tokens for control in sums])[:, None]
    return total_LDD / tokens, means_LGD.transpose(0, 2, 1) @ (means_LGD * shares_G1)


@torch.no_grad()  # not inference_mode: a sharded base gathers its weights in place
def measure_placeholder_length(decoder: Decoder) -> float:
    """Measure the mean length of a placeholder's hidden state where activations enter."""
    prefix = decoder.prompt.prefix(Reading(None, _PLACEHOLDERS, 0))
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: object, output: torch.Tensor | tuple[object]) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        assert isinstance(hidden, torch.Tensor)
        found.append(hidden[0, prefix.places].float().norm(dim=-1).mean())

    handle = decoder.write_block.register_forward_hook(keep)
    try:
        with decoder.without_adapter():
            ids = torch.from_numpy(prefix.ids)[None].to(decoder.device)
            net = decoder.net
            net(input_ids=ids, use_cache=False, logits_to_keep=1, **without_look(net))
    finally:
        handle.remove()
    return float(found[0].cpu())
