"""The artifacts that a step on the decoder is made from: tables, store and target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from activation_store.layout.config import CaptureConfig
from activation_store.read.reader import ActivationStore
from activation_store.target.files import ModelFiles
from core.runtime import Runtime
from core.table_files import CONVERSATIONS_FILE, read_conversations
from decoder.sources.live import LiveActivations


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInputs:
    """What training, evaluation and robustness all start from.

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

    def open_activations(self, runtime: Runtime) -> ActivationStore | LiveActivations:
        """Open the store, checked against its target; without one, prepare live activations.

        Raises:
            StoreError: there is no such store, or another model wrote it.
            DataError, ModelError: as `LiveActivations` raises them.
        """
        if self.store is None:
            assert self.capture is not None, "activations on the fly need a capture"
            rows = read_conversations(self.conversations / CONVERSATIONS_FILE)
            return LiveActivations(self.model, rows, self.capture)
        opened = ActivationStore(self.store, cache_mb=runtime.shard_cache_mb)
        opened.check_target(self.model.digests())
        return opened
