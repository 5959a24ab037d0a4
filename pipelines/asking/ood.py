"""The out-of-distribution detector of a trained decoder, from its training rows in its store."""

from __future__ import annotations

from activation_store.read.reader import ActivationStore
from core.documents.canonical import digest
from core.errors import LatentQAError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from decoder.model import Decoder
from decoder.sources.training_distribution import ActivationOODDetector
from decoder.visible_tokens import ReadLayers, read_visible
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.data_tables import CONVERSATION_STEPS
from pipelines.artifacts.root import ArtifactRoot

_ROWS = 256
"""Most training rows that are read, drawn by a hash of their ids."""


def find_ood_detector(artifact: Artifact | None, decoder: Decoder) -> ActivationOODDetector | None:
    """Fit a detector to the training activations of a decoder, at the first layer that it reads.

    Args:
        artifact: of kind train; None for a decoder that was copied out of its root.
        decoder: the decoder itself.

    Returns:
        None where the store or the conversations are not in its root any more, or are damaged, or
        where fewer than two training rows are left.
    """
    if artifact is None or "dump" not in (inputs := artifact.identity["inputs"]):
        return None  # or trained without a store
    root = ArtifactRoot(artifact.path.parents[1])
    views = artifact.identity["config"]["views"]
    layers = ReadLayers((decoder.select_layers().layers[0],))
    try:
        store = root.find(inputs["dump"]["key"], "dump")
        table = root.find(inputs["conversations"]["key"], *CONVERSATION_STEPS)
        if store is None or table is None:
            return None
        last_tokens = decoder.config.last_tokens
        opened = ActivationStore(store.checked().data, last_tokens=last_tokens)
        rows = [
            row
            for row in read_conversations(table.checked().data / CONVERSATIONS_FILE)
            if row.split == "train" and row.view in views and row.example_id in opened
        ]
        readings = [
            read_visible(
                opened, row.example_id, row.view, layers, masking=decoder.config.masking
            ).array
            for row in sorted(rows, key=lambda row: digest(row.example_id))[:_ROWS]
        ]
    except LatentQAError:
        return None  # an answer does not hang on the store that its decoder came from
    found = [vectors for vectors in readings if vectors is not None]
    return ActivationOODDetector(found) if len(found) > 1 else None
