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
    """Thresholds of the flags that are computed from the rows alone."""

    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a control of an earlier group from
    which a control is flagged."""
    most_compared: int = Field(default=20_000, ge=0)
    """Controls that are compared with one another, the first of the table; 0 for none."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control from which the stimulus gives the control away;
    one is enough where it stands in the label."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Least share of distinct runs of three words in an answer or a completion."""
    longest: int | None = Field(default=None, ge=1)
    """Characters of a whole conversation above which it is flagged; null for no limit."""


class ControlEffectConfig(Config):
    """The rows that are flagged because the target ignores their control."""

    least: float | None = None
    """Nats by which a completion must be likelier under its own control than under another one; a
    row below is flagged `control_ignored`. Null measures and flags none."""
    splits: tuple[Split, ...] = SPLITS
    """Splits whose rows are flagged: with `control_ignored` in `drop`, [train, validation] leaves
    them out of training alone, [test, test_ood, test_seen] out of what is judged."""


class QualityConfig(Config):
    """What is flagged, measured and dropped."""

    rules: RulesConfig = RulesConfig()
    """Thresholds of what needs no LLM."""
    drop: tuple[Flag, ...] = ()
    """Flags whose questions are left out of training and evaluation; a flagged conversation loses
    all of its questions."""
    answerability: bool = True
    """Ask an LLM each sampled question without anything else, and compare its answer with gold."""
    answerable: float = Field(default=0.6, gt=0, le=1)
    """Token F1 of an answer from the question alone from which a question is flagged."""
    faithfulness: bool = True
    """Have an LLM judge whether sampled answers and completions keep to their controls."""
    control_effect: ControlEffectConfig | None = None
    """How firmly the target holds each row's control, where rows have completions; null does not
    measure it. Costs two passes of the whole target over those rows."""
    passes: int = Field(default=2, ge=2)
    """How often each is judged; it is flagged where all passes find it unfaithful."""
    sample: int | None = Field(default=200, ge=1)
    """Most answers, and most completions, that an LLM looks at; null for all, as dropping by its
    flags needs."""
    seed: int = 0
    """Seed of the sample."""

    @field_validator("drop")
    @classmethod
    def _distinct(cls, drop: tuple[Flag, ...]) -> tuple[Flag, ...]:
        if len(set(drop)) != len(drop):
            raise ValueError("expected each flag once")
        return drop


class QualitySection(QualityConfig):
    """The YAML's section `quality`: a check of the data set, and the LLM that judges it."""

    endpoint: EndpointConfig = EndpointConfig()
    """The LLM. One that wrote the rows judges its own work; another is the better judge."""
    prompts: str | None = None
    """Folder whose YAML files replace packaged rubrics and prompts of the same name; their digests
    are part of the identity, the path is not."""
