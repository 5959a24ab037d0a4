"""Settings that decide an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from activation_store.layout.config import Layer
from activation_store.target.number_format import ComputeConfig
from core.config import Config
from core.records.tables import VIEWS, Split, View
from generators.llm.endpoint.config import EndpointConfig

ConditionName = Literal[
    "right", "swapped", "shifted_positions", "other", "mean", "none", "noise", "wrong_layer"
]
Baseline = Literal["prior", "visible_text", "text"]


RUBRIC = "judge_reading"
"""The prompt file by which answers are judged."""


class JudgeConfig(Config):
    """An LLM that judges written answers, and how many of them."""

    endpoint: EndpointConfig = EndpointConfig()
    """LLM that judges; the embedded model only serves to try the step and is too small to be
    reliable."""
    answers: int = Field(default=40, ge=1)
    """Most questions per split and view whose answers are judged, drawn by seed."""


class EvaluateConfig(ComputeConfig):
    """Which rows are evaluated, under which conditions and with which statistics."""

    splits: tuple[Split, ...] = ("test", "test_ood", "test_seen")
    """Splits that are evaluated; one without rows is skipped, and the report says so."""
    views: tuple[View, ...] = VIEWS
    """Views that are evaluated, each separately."""
    conditions: tuple[ConditionName, ...] = (
        "right",
        "swapped",
        "shifted_positions",
        "other",
        "mean",
        "none",
    )
    """Activations given to the decoder; `right` and `other` are required. Each costs a forward pass
    over all questions. `swapped` and `shifted_positions` apply to masked views and need
    `dump.swapped`; `wrong_layer` needs a second layer in dump.layers."""
    read_layer: Layer | None = None
    """Layer that is asked of a decoder with several read layers; null takes the first."""
    baselines: tuple[Baseline, ...] = ()
    """Decoders trained for comparison, each in its own step that takes as long as `train`: `prior`
    on the activations of other controls, `visible_text` on the visible tokens without activations
    (a claim of reading needs the decoder to beat both), and `text` on the control's own words
    instead of activations (an upper bound)."""
    visible_too: bool = False
    """Whether masked views are also evaluated with the control visible, under their own names
    (`system+visible`, ...)."""
    max_controls: int | None = Field(default=40, ge=1)
    """Most controls per split and view, drawn by seed; null for all."""
    answers: int = Field(default=3, ge=0)
    """Controls per split and view for which answers are written out with gold."""
    max_answer_tokens: int = Field(default=40, ge=1, le=100_000)
    """Longest written answer, in tokens."""
    identification: int = Field(default=4, ge=0)
    """Answers to the same question among which the decoder must find gold by likelihood, gold
    included; questions asked of too few controls are skipped and counted. 0 skips identification.
    Costs a forward pass over that many answers for each of `right`, `swapped` (`other` in view
    `control`), `none` and the baselines."""
    control_effect: bool = True
    """Whether to measure, where rows have completions, how many nats likelier a completion is under
    its own control than under the swapped one. Costs two passes of the whole target over those
    rows."""
    judge: JudgeConfig | None = None
    """LLM that judges the written answers, in its own step; null for none."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples over controls for each interval."""
    min_controls: int = Field(default=8, ge=2)
    """Controls below which an estimate has no interval."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of subset, `other`, `noise`, distractors and bootstrap."""

    @field_validator("identification")
    @classmethod
    def _a_choice(cls, identification: int) -> int:
        if identification == 1:
            raise ValueError("expected 0, or at least 2 answers to choose from")
        return identification

    @field_validator("baselines")
    @classmethod
    def _distinct(cls, baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        if len(set(baselines)) != len(baselines):
            raise ValueError("expected each baseline once")
        return baselines

    @field_validator("conditions")
    @classmethod
    def _needed(cls, conditions: tuple[ConditionName, ...]) -> tuple[ConditionName, ...]:
        if not {"right", "other"} <= set(conditions) or len(set(conditions)) != len(conditions):
            raise ValueError("expected distinct conditions with `right` and `other` among them")
        return conditions
