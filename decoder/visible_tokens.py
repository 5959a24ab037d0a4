"""Which activations of a row the decoder sees: one rule for training, evaluation and asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from activation_store.layout.index import SequenceSpan
from core.canonical import digest
from core.errors import ConfigError, DataError
from decoder.batch import Reading
from decoder.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class ReadLayers:
    """The layers whose activations one reading holds.

    Attributes:
        layers: blocks, counted from 0.
        named: whether the prompt says which they are.
    """

    layers: tuple[int, ...]
    named: bool = False


class Activations(Protocol):
    """Where rows' activations come from: an activation store, or the target run on the fly."""

    @property
    def d_model(self) -> int:
        """Width of an activation."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The read layers that it can give."""

    def __contains__(self, example_id: str) -> bool: ...

    def only_layer(self, layer: int | None) -> int:
        """The layer to read: `layer`, or its only one; a StoreError where it has not that."""

    def place(self, example_id: str) -> SequenceSpan:
        """How long an example is, and how much of it masking withholds; a DataError where it is
        not there."""

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray]:
        """Activations [T, D] float32 of one example at the outputs of these blocks."""


def reads(config: DecoderConfig, read_layer: int, layer: int | None = None) -> ReadLayers:
    """The layers of one reading of a decoder, where `layer` is asked for.

    Args:
        read_layer: the layer of a decoder that reads one.
        layer: None takes the decoder's first.

    Raises:
        ConfigError: the decoder does not read `layer`, or only beside others.
    """
    own = config.read_layers or (read_layer,)
    if config.read_layers and config.combine == "together":
        if layer is not None:
            raise ConfigError(
                f"layer {layer}: the decoder reads layers {list(own)} together; name none."
            )
        return ReadLayers(own, named=True)
    if layer is not None and layer not in own:
        raise ConfigError(f"layer {layer}: the decoder reads {list(own)}; name one of them.")
    return ReadLayers((own[0] if layer is None else layer,), named=bool(config.read_layers))


def row_reads(
    config: DecoderConfig, read_layer: int, example_id: str, *, seed: int, a_pass: int = 0
) -> ReadLayers:
    """The layers of one row in training: of several `sampled` ones, one drawn by seed and id, anew
    in each pass over the rows (counted from 0)."""
    several = config.read_layers
    if not several or config.combine == "together":
        return reads(config, read_layer)
    key = [seed, "layer", example_id, *([a_pass] if a_pass else [])]
    drawn = int(digest(key)[:12], 16) % len(several)
    return reads(config, read_layer, several[drawn])


def withheld_tokens(view: str, withheld: int, *, masking: bool) -> int:
    """Leading tokens that are not shown: none in view `control`, and none without masking."""
    return withheld if masking and view != "control" else 0


def stored_reading(
    store: Activations, example_id: str, view: str, layers: ReadLayers | int, *, masking: bool
) -> Reading:
    """The visible activations of a row.

    Args:
        layers: a number is that layer alone, not named.

    Raises:
        DataError: the row is not in the store, or masking leaves nothing of it.
    """
    if isinstance(layers, int):
        layers = ReadLayers((layers,))
    placed = store.place(example_id)
    first = withheld_tokens(view, placed.withheld, masking=masking)
    if first >= placed.n_tokens:
        raise DataError(f"example {example_id}: masking leaves no activation to read.")
    seen = [own[first:] for own in store.read_layers(example_id, layers.layers)]
    vectors = seen[0] if len(seen) == 1 else np.concatenate(seen)
    return Reading(vectors, len(seen[0]), first, layers.layers if layers.named else ())
