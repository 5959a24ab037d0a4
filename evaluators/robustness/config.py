"""Settings that decide a measurement of robustness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from activation_store.target.number_format import ComputeConfig
from core.records.tables import VIEWS, Split, View
from evaluators.config import EvaluateConfig

AlterationName = Literal["decoy", "forbidden", "novel_question"]


class RobustnessConfig(ComputeConfig):
    """Which rows are altered, and how; and how far the target is moved from what was read."""

    splits: tuple[Split, ...] = ("test", "test_ood")
    """Splits that are evaluated; with both, held-out categories are compared with the others."""
    views: tuple[View, ...] = VIEWS
    """Views that are evaluated, each separately."""
    alterations: tuple[AlterationName, ...] = ("decoy", "forbidden", "novel_question")
    """What is done to each row (evaluators/robustness/alterations.py); each costs a forward
    pass of the target and two of the decoder over all questions."""
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Strengths at which a fine-tune of the target, made here, is read by the unchanged decoder;
    1 is the fine-tune as it was trained."""
    shift_steps: int = Field(default=20, ge=1)
    """Optimiser steps of that fine-tune, on the training split's conversations."""
    shift_learning_rate: float = Field(default=1e-3, gt=0)
    """Its learning rate."""
    shift_rank: int = Field(default=8, ge=1, le=8192)
    """Rank of its LoRA adapter."""
    max_controls: int | None = Field(default=20, ge=1)
    """Most controls of a split and view, drawn by seed; null for all."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples over controls of every interval."""
    min_controls: int = Field(default=8, ge=2)
    """Controls under which an estimate is given without an interval."""
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
