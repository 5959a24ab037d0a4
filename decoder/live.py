"""Activations without a store: the target runs when a row is read.

The target is the decoder's own base model with its adapter off, so no second copy is in memory.
What is read is what a store of the same capture would hold, its number format included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activation_store.layout.arrays import to_float32
from activation_store.layout.config import CaptureConfig
from activation_store.layout.index import SequenceSpan
from activation_store.read.reader import ActivationStore
from activation_store.target.capture import Capture
from activation_store.target.files import ModelFiles
from activation_store.target.host_copy import to_stored
from activation_store.target.load import load_tokenizer, model_shape
from activation_store.write.dump import tokenize_rows
from core.errors import DataError, StoreError
from core.runtime import Runtime
from core.table_files import CONVERSATIONS_FILE, read_conversations
from core.tables import Conversation
from decoder.model import Decoder


class LiveActivations:
    """Stands where an activation store does; the rows that a dump would drop are not in it.

    Attributes:
        layers: the read layers that it can give.
        d_model: width of an activation.
    """

    def __init__(
        self, model: ModelFiles, rows: Sequence[Conversation], capture: CaptureConfig
    ) -> None:
        """Tokenise `rows`; nothing runs before `run_on`.

        Args:
            capture: as of a dump; its layers, lengths and `store_dtype` are kept to.

        Raises:
            DataError: a row is too long and `too_long` is `refuse`, or none is left.
            ModelError: the model has not one of the layers.
        """
        shape = model_shape(model)
        self.layers: tuple[int, ...] = tuple(shape.layer(k, "dump.layers") for k in capture.layers)
        self.d_model = shape.d_model
        longest = min(capture.max_tokens, shape.max_positions)
        tokenizer = load_tokenizer(model)
        self._tokens, _ = tokenize_rows(list(rows), tokenizer, longest, capture.too_long)
        self._decoder: Decoder | None = None
        self._dtype = capture.store_dtype

    def run_on(self, decoder: Decoder) -> None:
        """Choose the decoder whose base is the target."""
        self._decoder = decoder

    def __contains__(self, example_id: str) -> bool:
        return example_id in self._tokens

    def only_layer(self, layer: int | None) -> int:
        """The layer to read: `layer`, or the only one.

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
        """How long an example is, and how much of it masking withholds.

        Raises:
            DataError: it is not there.
        """
        if example_id not in self._tokens:
            raise DataError(f"example {example_id} is not among the rows of this run.")
        tokens = self._tokens[example_id]
        return SequenceSpan(example_id, 0, 0, len(tokens.ids), tokens.withheld)

    def read_layers(self, example_id: str, layers: Sequence[int]) -> list[np.ndarray]:
        """Activations [T, D] float32 of one example at the outputs of these blocks, without dropout
        or a trace in the graph.

        The target runs once a call, whatever was read before: processes that share the weights
        have to run as often as each other.
        """
        assert self._decoder is not None, "run_on was not called"
        net = self._decoder.net
        training = net.training
        net.eval()
        try:
            with self._decoder.untrained():
                found = Capture(net.get_base_model(), layers)([self._tokens[example_id].ids])
        finally:
            net.train(training)
        return [to_float32(to_stored(found[k][0], self._dtype), self._dtype) for k in layers]


def open_activations(
    store: Path | None,
    conversations: Path,
    *,
    model: ModelFiles,
    capture: CaptureConfig | None,
    runtime: Runtime,
) -> ActivationStore | LiveActivations:
    """The store, bound to its target; without one, the conversations' activations on the fly.

    Args:
        capture: what a dump would do; for activations on the fly alone.

    Raises:
        StoreError: there is no such store, or it is another model's.
        DataError, ModelError: as `LiveActivations` has them.
    """
    if store is None:
        assert capture is not None, "activations on the fly need a capture"
        rows = read_conversations(conversations / CONVERSATIONS_FILE)
        return LiveActivations(model, rows, capture)
    opened = ActivationStore(store, cache_mb=runtime.shard_cache_mb)
    opened.check_target(model.digests())
    return opened
