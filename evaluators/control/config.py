"""Settings of steering and of its evaluation: the YAML's section `control`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from activation_store.layout.config import Layer
from activation_store.target.number_format import ComputeConfig
from core.config import Config
from decoder.steering.config import ActivationSteeringConfig
from generators.llm.endpoint.config import EndpointConfig
from trainers.steering.config import WeightSteeringConfig

Method = Literal[
    "prompting", "activations", "vector", "weights", "difference", "reading_vector", "sft"
]
"""Ways to steer. By the decoder's gradient: `activations` of each prompt, their mean shift as a
`vector`, or the target's `weights`. Baselines: a system prompt (`prompting`), the `difference` of
mean activations of replies under it and without, the first principal component of such differences
(`reading_vector`), and the same adapter trained on replies under it (`sft`)."""


JudgedMeasure = Literal["adherence", "sentiment"]
"""What an LLM judges of a reply: whether it keeps to the control, and its mood."""


class ControlJudgeConfig(Config):
    """An LLM that judges steered replies, in addition to code and likelihood."""

    endpoint: EndpointConfig = EndpointConfig()
    """LLM that judges; the embedded model only serves to try the step and is too small to be
    reliable."""
    measures: tuple[JudgedMeasure, ...] = ("adherence",)
    """What is judged of each reply, with two requests each: whether it follows the control
    (`adherence`), its mood (`sentiment`)."""
    prompts: int = Field(default=24, ge=1)
    """Most test prompts per control whose replies are judged, the same for every method."""


class ControlSection(ComputeConfig):
    """Towards what the target is steered, how, and how the replies are evaluated."""

    controls: tuple[str, ...] = ("cheerful", "formal", "ocean")
    """Controls: names of packaged ones, or paths of files (docs/control.md)."""
    methods: tuple[Method, ...] = (
        "prompting",
        "activations",
        "vector",
        "weights",
        "difference",
        "reading_vector",
        "sft",
    )
    """Steering methods that are compared."""
    read_layer: Layer | None = None
    """Layer at which a decoder of several sampled read layers is asked and the target is steered;
    null takes the first. `weights` trains on all of them by turns."""
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Strengths at which each method is tried on validation prompts, as multiples of its own shift;
    `prompting` is tried in as many wordings instead."""
    prompts: str | None = None
    """Text file of ordinary prompts, one per line, from which the sets below are drawn; null for
    the packaged ones."""
    train_prompts: int = Field(default=32, ge=4)
    """Ordinary prompts from which vectors and adapters are made."""
    validation_prompts: int = Field(default=8, ge=2)
    """Prompts on which strengths are chosen."""
    test_prompts: int = Field(default=24, ge=2)
    """Prompts on which the methods are evaluated."""
    max_tokens: int = Field(default=40, ge=1, le=100_000)
    """Longest reply, in tokens."""
    reply_attempts: int = Field(default=1, ge=1, le=1000)
    """Replies under the control drawn per prompt to make `difference`, `reading_vector` and `sft`;
    the one with the highest adherence is kept. The first is greedy, the others are sampled at
    temperature 0.7."""
    activations: ActivationSteeringConfig = ActivationSteeringConfig()
    """Steering by activations, at strength 1."""
    weights: WeightSteeringConfig = WeightSteeringConfig()
    """Steering by weights; `sft` uses the same adapter and steps."""
    perplexity_limit: float = Field(default=1.3, ge=1)
    """Highest ratio of either perplexity to the unsteered target's for a strength to be chosen."""
    distinct_limit: float = Field(default=0.2, ge=0)
    """Largest relative change of distinct-2 for a strength to be chosen."""
    judge: ControlJudgeConfig | None = None
    """LLM that also judges the replies, in its own step; null for none."""
    crows_pairs: str | None = None
    """CSV file of CrowS-Pairs, on which bias is measured before and after steering; null for
    none."""
    crows_rows: int | None = Field(default=None, ge=10)
    """Most pairs of that file, drawn by seed; null for all."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples over prompts for each interval."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of prompts and bootstrap."""

    @field_validator("controls", "methods", "strengths")
    @classmethod
    def _distinct(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError("expected at least one, each once")
        return values

    @field_validator("strengths")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError("expected strengths above 0")
        return values
