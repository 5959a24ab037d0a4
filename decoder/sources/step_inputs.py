"""The artifacts that a step on the decoder is made from: tables, store and target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from activation_store.layout.config import CaptureConfig
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from core.errors import ConfigError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.runtime import Runtime
from decoder.config import Normalisation
from decoder.sources.difference import DifferenceActivations
from decoder.sources.live import LiveActivations


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInputs:
    """Tables, store and target from which training, evaluation and robustness start.

    Attributes:
        conversations: folder of the conversations table.
        questions: folder of the questions table.
        store: folder of the activation store; None where activations are computed on the fly.
        model: files of the decoder's target.
        capture: where there is no store, the settings that a dump would have.
    """

    conversations: Path
    questions: Path
    store: Path | None
    model: ModelFiles
    capture: CaptureConfig | None = None

    def open_activations(
        self, runtime: Runtime, normalisation: Normalisation = "none"
    ) -> ActivationStore | LiveActivations:
        """Open the store, checked against its target; without one, prepare live activations.

        Args:
            runtime: size of the reader's cache.
            normalisation: of the decoder that reads them; `difference` needs activations on the
                fly.

        Raises:
            ConfigError: `difference` with a store.
            StoreError: there is no such store, or another model wrote it.
            DataError, ModelError: as `LiveActivations` raises them.
        """
        if self.store is None:
            assert self.capture is not None, "activations on the fly need a capture"
            rows = read_conversations(self.conversations / CONVERSATIONS_FILE)
            made = DifferenceActivations if normalisation == "difference" else LiveActivations
            return made(self.model, rows, self.capture)
        if normalisation == "difference":
            raise ConfigError(
                "train.decoder.normalisation: `difference` needs activations of texts "
                "without their control, which a store does not have. Set train.activations "
                "to `live`."
            )
        opened = ActivationStore(self.store, cache_mb=runtime.shard_cache_mb)
        opened.check_target(self.model.digests())
        return opened
