"""Statistics of the training tokens, by which a decoder normalises what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from decoder.model import Decoder
from decoder.normalisation import ActivationStatistics
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource
from trainers.config import TrainConfig
from trainers.rows import Row, count_visible_tokens

_MOST_ROWS = 1024
"""Rows are drawn by hash of their ids already, so that the first of them are a sample."""
_PLACEHOLDERS = 16


def measure_statistics(
    decoder: Decoder, activations: ActivationSource, rows: Sequence[Row], config: TrainConfig
) -> ActivationStatistics:
    """Measure mean and deviation of each feature over the visible tokens of training rows.

    All processes of a training measure the same. At most 1,024 rows are read.

    Args:
        decoder: the decoder, for its layers and the length of what activations replace.
        activations: source of the rows' activations.
        rows: training rows.
        config: whether the control's own tokens are withheld.
    """
    masking = config.decoder.masking

    def visible() -> Iterator[np.ndarray]:
        for row in rows[:_MOST_ROWS]:
            seen = count_visible_tokens(activations, row, masking=masking)
            layers = activations.read_layers(row.example_id, decoder.layers)
            yield np.stack([layer[-seen:] for layer in layers])

    return ActivationStatistics.measure(visible(), length=measure_placeholder_length(decoder))


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
            decoder.net(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    return float(found[0])
