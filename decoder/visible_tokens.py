"""The activations of a row that the decoder sees: one rule for training, evaluation and asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from activation_store.layout.index import SequenceSpan
from core.documents.canonical import digest
from core.errors import ConfigError, DataError
from decoder.config import DecoderConfig
from decoder.reading import Reading


@dataclass(frozen=True, slots=True)
class ReadLayers:
    """The layers whose activations one reading holds.

    Attributes:
        layers: blocks, counted from 0.
        named: whether the prompt says which they are.
    """

    layers: tuple[int, ...]
    named: bool = False


class ActivationSource(Protocol):
    """A source of rows' activations: an activation store, or the target run on the fly."""

    last_tokens: int | None
    """Most tokens of a row that its decoder reads, the last ones; None for all that are visible."""

    @property
    def d_model(self) -> int:
        """Width of an activation."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Read layers that can be read."""

    def __contains__(self, example_id: str) -> bool: ...

    def only_layer(self, layer: int | None) -> int:
        """Return `layer`, for None the only layer; a StoreError where it cannot be read."""

    def place(self, example_id: str) -> SequenceSpan:
        """Return an example's number of tokens, and how many masking withholds.

        Raises:
            DataError: the example is not there.
        """

    def tokens(self, example_id: str) -> np.ndarray:
        """Return an example's token ids [T]."""

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray]:
        """Read activations [T, D] float32 of one example at the outputs of these blocks."""


def block_numbers(config: DecoderConfig, read_layer: int) -> tuple[int, ...]:
    """Return the blocks that a decoder reads: its several layers, else `read_layer`."""
    return tuple(map(int, config.read_layers)) or (read_layer,)


def select_layers(config: DecoderConfig, read_layer: int, layer: int | None = None) -> ReadLayers:
    """Select the layers of one reading of a decoder.

    Args:
        config: of the decoder.
        read_layer: the layer of a decoder that reads one.
        layer: the layer that is asked for; None takes the decoder's first.

    Raises:
        ConfigError: the decoder does not read `layer`, or only together with others.
    """
    known = block_numbers(config, read_layer)
    if config.read_layers and config.combine == "concatenated":
        if layer is not None:
            raise ConfigError(
                f"layer {layer}: the decoder reads layers {list(known)} together; name none."
            )
        return ReadLayers(known, named=True)
    if layer is not None and layer not in known:
        raise ConfigError(f"layer {layer}: the decoder reads {list(known)}; name one of them.")
    return ReadLayers((known[0] if layer is None else layer,), named=bool(config.read_layers))


def draw_row_layers(
    config: DecoderConfig, read_layer: int, example_id: str, *, seed: int, epoch: int = 0
) -> ReadLayers:
    """Draw the layers of one row in training.

    Of several `sampled` layers one is drawn by seed and id, anew in each epoch.

    Args:
        config: of the decoder.
        read_layer: the layer of a decoder that reads one.
        example_id: of the row.
        seed: of the draw.
        epoch: counted from 0.
    """
    several = block_numbers(config, read_layer)
    if not config.read_layers or config.combine == "concatenated":
        return select_layers(config, read_layer)
    key = [seed, "layer", example_id, *([epoch] if epoch else [])]
    drawn = int(digest(key)[:12], 16) % len(several)
    return select_layers(config, read_layer, several[drawn])


def count_withheld(view: str, withheld: int, *, masking: bool, unread: int = 0) -> int:
    """Count the leading tokens that are withheld: none in view `control` or without masking.

    Args:
        view: of the row.
        withheld: tokens that masking withholds in other views.
        masking: whether it does.
        unread: tokens that are not read in any view (`decoder.tokens`).
    """
    return max(unread, withheld if masking and view != "control" else 0)


def read_visible(
    store: ActivationSource, example_id: str, view: str, layers: ReadLayers | int, *, masking: bool
) -> Reading:
    """Read the visible activations of a row.

    Args:
        store: where they are.
        example_id: of the row.
        view: of the row.
        layers: layers to read; a number is that layer alone, not named in the prompt.
        masking: whether the control's own tokens are withheld.

    Raises:
        DataError: the row is not in the store, or masking leaves nothing of it.
    """
    if isinstance(layers, int):
        layers = ReadLayers((layers,))
    placed = store.place(example_id)
    first = count_withheld(view, placed.withheld, masking=masking, unread=placed.unread)
    if first >= placed.n_tokens:
        raise DataError(f"example {example_id}: masking leaves no activation to read.")
    seen = [vectors[first:] for vectors in store.read_layers(example_id, layers.layers)]
    vectors = seen[0] if len(seen) == 1 else np.concatenate(seen)
    return Reading(vectors, len(seen[0]), first, layers.layers if layers.named else ())
