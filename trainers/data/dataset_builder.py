"""The datasets of a training, built from tables and activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Dropped, Split, View
from decoder.model import Decoder
from decoder.sources.step_inputs import StepInputs
from decoder.visible_tokens import ActivationSource, ReadLayers, draw_row_layers
from trainers.config import TrainConfig, Variant
from trainers.data.contrast import find_contrasts, find_stored_swaps
from trainers.data.dataset import RowDataset
from trainers.data.decoder_inputs import make_decoder_inputs
from trainers.data.rows import Row, drop_unwritable_questions, limit_questions, load_rows, select


class DatasetBuilder:
    """Builds the datasets of a training.

    Attributes:
        dropped: questions that the chat template cannot write, of all datasets built so far.
    """

    def __init__(
        self,
        inputs: StepInputs,
        activations: ActivationSource,
        decoder: Decoder,
        layer: int,
        config: TrainConfig,
        variant: Variant,
    ) -> None:
        self._rows = load_rows(inputs.conversations, inputs.questions, activations)
        self._table = read_conversations(inputs.conversations / CONVERSATIONS_FILE)
        self._activations = activations
        self._decoder = decoder
        self._layer = layer
        self._config = config
        self._variant = variant
        self.dropped: list[Dropped] = []

    def find_swapped(self, rows: Sequence[Row]) -> dict[str, str]:
        """Find, by example id of a training row, its visible text under another control."""
        found: dict[str, str] = {}
        for view in sorted({row.conversation.view for row in rows}):
            swaps = find_stored_swaps(self._table, self._activations, "train", view)
            found |= {own: swap.swapped.example_id for own, swap in swaps.items()}
        return found

    def build(self, split: Literal["train", "validation"]) -> RowDataset | None:
        """Build the dataset of a split; None where the split has no row."""
        config, prompt = self._config, self._decoder.prompt
        views, seed = config.views, config.seed
        most = config.max_rows if split == "train" else config.validation_rows
        masked = tuple(view for view in views if view != "control")
        if split == "validation" and config.decoder.masking and self._has(split, masked):
            views = masked  # checkpoints are chosen by what is hidden, not by what is copied
        rows = select(
            self._rows, split=split, views=views, most=most, seed=seed, mixture=config.mixture
        )
        if split == "train":
            rows = limit_questions(rows, config.questions_per_row, seed=seed)
        rows, unwritable = drop_unwritable_questions(prompt, rows)
        self.dropped += unwritable
        if not rows:
            return None
        pool = select(self._rows, split=split, views=views, most=None, seed=seed)
        contrasts = None
        if split == "train" and config.contrastive and self._variant == "own":
            contrasts = find_contrasts(rows, pool, self._table, self._activations)
        inputs = make_decoder_inputs(
            self._variant,
            pool,
            self._activations,
            prompt,
            layers=self._draw_layers,
            masking=config.decoder.masking,
            seed=seed,
        )
        return RowDataset(
            rows,
            inputs,
            prompt,
            packed=self._decoder.can_pack,
            micro_batch_tokens=config.micro_batch_tokens,
            contrasts=contrasts,
        )

    def _has(self, split: Split, views: Sequence[View]) -> bool:
        rows = (row.conversation for row in self._rows)
        return any(row.split == split and row.view in views for row in rows)

    def _draw_layers(self, example_id: str, epoch: int) -> ReadLayers:
        config = self._config
        return draw_row_layers(
            config.decoder, self._layer, example_id, seed=config.seed, epoch=epoch
        )
