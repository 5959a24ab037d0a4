"""Activations without a store: the target runs when a row is read.

The target is the decoder's own base model with its adapter off, so no second copy is in memory.
The activations equal those that a store of the same capture would hold, rounding to its number
format included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activation_store.layout.arrays import to_float32
from activation_store.layout.config import CaptureConfig
from activation_store.layout.index import SequenceSpan
from activation_store.model_files.files import ModelFiles
from activation_store.target.capture import Capture
from activation_store.target.host_copy import to_stored
from activation_store.target.load import load_tokenizer, model_shape
from activation_store.write.prepared import tokenize_rows
from core.errors import DataError, StoreError
from core.records.tables import Conversation
from decoder.model import Decoder


class LiveActivations:
    """An activation source that computes on the fly; rows that a dump would drop are not in it.

    Attributes:
        layers: the read layers that it can give.
        d_model: width of an activation.
        last_tokens: most tokens of a row that its decoder reads, the last ones; None for all.
    """

    last_tokens: int | None = None

    def __init__(
        self, model: ModelFiles, rows: Sequence[Conversation], capture: CaptureConfig
    ) -> None:
        """Tokenise `rows`; no forward pass runs before `attach_decoder`.

        Args:
            model: the target's files.
            rows: conversations whose activations may be read.
            capture: settings of a dump, of which layers, lengths and `store_dtype` apply.

        Raises:
            DataError: a row is too long and `too_long` is `refuse`, or no row is left.
            ModelError: the model lacks one of the layers.
        """
        shape = model_shape(model)
        self.layers: tuple[int, ...] = tuple(shape.layer(k, "dump.layers") for k in capture.layers)
        self.d_model = shape.d_model
        longest = min(capture.max_tokens, shape.max_positions)
        tokenizer = load_tokenizer(model)
        self._tokens, _ = tokenize_rows(rows, tokenizer, capture, longest=longest)
        self._decoder: Decoder | None = None
        self._dtype = capture.store_dtype

    def attach_decoder(self, decoder: Decoder) -> None:
        """Set the decoder whose base model is the target."""
        self._decoder = decoder

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._tokens

    def only_layer(self, layer: int | None) -> int:
        """Return `layer` where it can be read; for None the only layer.

        Raises:
            StoreError: `layer` is not among `layers`, or there are several and none was named.
        """
        if layer is None and len(self.layers) == 1:
            return self.layers[0]
        if layer is None or layer not in self.layers:
            raise StoreError(
                f"activations on the fly: dump.layers is {list(self.layers)}, got "
                f"train.decoder.read_layer {layer}. Name one of them."
            )
        return layer

    def place(self, example_id: str) -> SequenceSpan:
        """Return an example's number of tokens, and how many of them masking withholds.

        Raises:
            DataError: the example is not among the rows.
        """
        if example_id not in self._tokens:
            raise DataError(f"example {example_id} is not among the rows of this run.")
        tokens = self._tokens[example_id]
        span = SequenceSpan(example_id, 0, 0, len(tokens.ids), tokens.withheld)
        return span.keep_last(self.last_tokens)

    def tokens(self, example_id: str) -> np.ndarray:
        """Return an example's token ids [T].

        Raises:
            DataError: the example is not among the rows.
        """
        self.place(example_id)
        return self._tokens[example_id].ids

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray]:
        """Run the target and return an example's activations [T, D] float32 at these blocks.

        There is no dropout and no gradient. Nothing is cached: processes that share the weights
        have to run equally often.
        """
        assert self._decoder is not None, "attach_decoder was not called"
        net = self._decoder.net
        training = net.training
        net.eval()
        try:
            with self._decoder.without_adapter():
                found = Capture(net.get_base_model(), layers)([self._tokens[example_id].ids])
        finally:
            net.train(training)
        return [to_float32(to_stored(found[k][0], self._dtype), self._dtype) for k in layers]
