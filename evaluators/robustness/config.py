"""Settings that decide a measurement of robustness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from activation_store.target.number_format import ComputeConfig
from core.records.tables import VIEWS, Split, View
from evaluators.config import EvaluateConfig

AlterationName = Literal["decoy", "forbidden", "novel_question"]


class RobustnessConfig(ComputeConfig):
    """How rows are altered, and how far the target is fine-tuned, to test an unchanged decoder."""

    splits: tuple[Split, ...] = ("test", "test_ood")
    """Splits that are evaluated; with both, held-out categories are compared with the others."""
    views: tuple[View, ...] = VIEWS
    """Views that are evaluated, each separately."""
    alterations: tuple[AlterationName, ...] = ("decoy", "forbidden", "novel_question")
    """Alterations of each row (evaluators/robustness/alterations.py); each costs a forward pass of
    the target and two of the decoder over all questions."""
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Strengths at which the unchanged decoder reads a fine-tune of the target that this step
    trains; 1 is the fine-tune as trained. Empty for no fine-tune."""
    shift_steps: int = Field(default=20, ge=1)
    """Optimiser steps of the fine-tune, on the conversations of the training split."""
    shift_learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the fine-tune."""
    shift_rank: int = Field(default=8, ge=1, le=8192)
    """Rank of the fine-tune's LoRA adapter."""
    max_controls: int | None = Field(default=20, ge=1)
    """Most controls per split and view, drawn by seed; null for all."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples over controls for each interval."""
    min_controls: int = Field(default=8, ge=2)
    """Controls below which an estimate has no interval."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of subset, decoys, words, fine-tune and bootstrap."""

    @field_validator("strengths", "alterations")
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) != len(values):
            raise ValueError("expected each once")
        return values

    @property
    def rows(self) -> EvaluateConfig:
        """The same choice of rows and statistics as settings of an evaluation."""
        return EvaluateConfig(
            splits=self.splits,
            views=self.views,
            max_controls=self.max_controls,
            bootstrap=self.bootstrap,
            min_controls=self.min_controls,
            seed=self.seed,
        )
