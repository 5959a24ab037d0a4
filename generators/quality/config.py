"""Configs of a data set's quality check: thresholds, what is dropped, what an LLM is asked."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from core.config import Config
from core.records.tables import SPLITS, Split
from generators.llm.endpoint.config import EndpointConfig

Flag = Literal[
    "near_duplicate",
    "gives_control_away",
    "refusal",
    "repeats_itself",
    "too_long",
    "repeated_question",
    "unsupported",
    "answer_in_question",
    "answerable",
    "unfaithful_answer",
    "unfaithful_completion",
    "control_ignored",
]
"""Why a row is flagged; docs/data.md says what each means."""
FLAGS: tuple[Flag, ...] = get_args(Flag)


class RulesConfig(Config):
    """Thresholds of flags that need no LLM."""

    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a control of an earlier group at
    which a control is flagged."""
    most_compared: int = Field(default=20_000, ge=0)
    """Most controls that are compared with each other, in the table's order; 0 for none."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control at which the stimulus gives the control away;
    one word is enough if it is in the label."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Smallest share of distinct word triples in an answer or completion that is not repetitive."""
    longest: int | None = Field(default=None, ge=1)
    """Longest conversation that is not flagged, in characters; null for no limit."""


class ControlEffectConfig(Config):
    """Which rows are flagged because the target ignores their control."""

    least: float | None = None
    """Smallest control effect in nats, by which a completion must be likelier under its own control
    than under another; rows below are flagged `control_ignored`. Null measures and flags none."""
    splits: tuple[Split, ...] = SPLITS
    """Splits whose rows are flagged. With `control_ignored` in `drop`, [train, validation] leaves
    them out of training only, [test, test_ood, test_seen] out of evaluation only."""


class QualityConfig(Config):
    """What is flagged, measured and dropped."""

    rules: RulesConfig = RulesConfig()
    """Thresholds of flags that need no LLM."""
    drop: tuple[Flag, ...] = ()
    """Flags whose questions are left out of training and evaluation; a flagged conversation loses
    all its questions."""
    answerability: bool = True
    """Whether an LLM is asked each sampled question without any context, to compare its answer with
    gold."""
    answerable: float = Field(default=0.6, gt=0, le=1)
    """Token F1 of such an answer at which a question is flagged."""
    faithfulness: bool = True
    """Whether an LLM judges if sampled answers and completions follow their controls."""
    control_effect: ControlEffectConfig | None = None
    """How strongly the target follows each row's control, where rows have completions; null does
    not measure it. Costs two passes of the whole target over those rows."""
    passes: int = Field(default=2, ge=2, le=100)
    """Judgements of each answer or completion; it is flagged if all find it unfaithful."""
    sample: int | None = Field(default=200, ge=1)
    """Most answers, and most completions, that an LLM checks; null for all, which dropping by an
    LLM's flags requires."""
    seed: int = 0
    """Seed of the sample."""

    @field_validator("drop")
    @classmethod
    def _distinct(cls, drop: tuple[Flag, ...]) -> tuple[Flag, ...]:
        if len(set(drop)) != len(drop):
            raise ValueError("expected each flag once")
        return drop


class QualitySection(QualityConfig):
    """The YAML's section `quality`: a check of the dataset, and the LLM that judges it."""

    endpoint: EndpointConfig = EndpointConfig()
    """LLM that judges; preferably not the one that wrote the rows."""
    prompts: str | None = None
    """Folder whose YAML files replace packaged rubrics and prompts of the same name; their digests
    are part of the cache key, the path is not."""
