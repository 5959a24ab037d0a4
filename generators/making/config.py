"""Configs of a generated data set; conversations and questions are decided apart.

Conversations and questions are two artifacts, so their configs are two types: a change in
`QuestionsConfig` leaves the conversations, and all that is made from them, as they are.
"""

from __future__ import annotations

from typing import get_args

from pydantic import Field, field_validator

from core.config import Config
from core.records.tables import QuestionType
from generators.kinds.config import KindPlan
from generators.llm.endpoint.config import EndpointConfig, SamplingConfig
from generators.splits import SplitConfig


class FilterConfig(Config):
    """Which rows are dropped; each is kept aside with its reason."""

    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a kept row, a seed or a few-shot
    example at which a row is a near-duplicate."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Smallest share of distinct word triples in a text that is not repetitive."""
    copied_words: int = Field(default=3, ge=2)
    """Consecutive content words taken from a few-shot example at which a reply counts as copied."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control at which the stimulus gives the control away;
    one word is enough if it is in the label."""
    specific: bool = True
    """Whether answers that share no content word with their control are dropped."""


class ConversationsConfig(Config):
    """Settings that decide the controls and stimuli."""

    kinds: dict[str, KindPlan] = Field(
        default_factory=lambda: {name: KindPlan() for name in ("persona", "goal", "extractive")}
    )
    """Kinds of controls (generators/kinds) with a plan each."""
    sampling: SamplingConfig = SamplingConfig()
    """How the LLM samples controls and stimuli."""
    filters: FilterConfig = FilterConfig()
    """Which replies are dropped."""
    over_ask: float = Field(default=2.0, ge=1)
    """Most requests per planned row on average, replacements included."""
    splits: SplitConfig = SplitConfig()
    """How controls are divided into splits; name at least one category of each kind in
    `test_ood`."""
    seed: int = 0
    """Seed of all random choices: order of categories, openings, subjects of stimuli."""

    @field_validator("kinds")
    @classmethod
    def _some(cls, kinds: dict[str, KindPlan]) -> dict[str, KindPlan]:
        if not kinds:
            raise ValueError("expected at least one kind")
        return kinds


class QuestionsConfig(Config):
    """Settings that decide the questions about given conversations."""

    per_control: int = Field(default=5, ge=1, le=16)
    """Questions per control, divided evenly among its kind's types."""
    types: tuple[QuestionType, ...] | None = None
    """Types of questions; null for all of a kind. `description` of the control, `prediction` of
    replies under it, `extraction` of what a passage says; for profiles `single_fact`, `two_hop`,
    `comparison`, `counting`, `negation`; for texts what stood `before` and what comes `after`."""
    yes_no: float = Field(default=0.0, ge=0, le=0.5)
    """Share of yes/no questions, such as 0.34, among the questions about controls written by an
    LLM. Code makes them from the descriptions, half about the control and half about another, so
    that answers are balanced. For kinds drawn by code use `types`."""
    shared: bool = False
    """Whether all controls of one kind in one of the splits validation, test and test_ood are asked
    the same questions, so that each answer can be identified among others to its question
    (`evaluate.identification`); otherwise each control is asked paraphrases of its own. Questions
    about a passage's sentences stay its own."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.3)
    """How the LLM samples questions and answers."""
    filters: FilterConfig = FilterConfig()
    """Which replies are dropped."""
    over_ask: float = Field(default=2.0, ge=1)
    """Most requests per planned question on average, replacements included."""
    seed: int = 0
    """Seed of all random choices: paraphrases of questions, subjects of predictions."""

    @field_validator("types")
    @classmethod
    def _distinct(cls, types: tuple[QuestionType, ...] | None) -> tuple[QuestionType, ...] | None:
        if types is not None and (not types or len(set(types)) != len(types)):
            raise ValueError(f"expected distinct types among {', '.join(get_args(QuestionType))}")
        return types


class GenerateConfig(Config):
    """Settings that decide the rows, besides the LLM, the prompts and the seed ideas."""

    conversations: ConversationsConfig = ConversationsConfig()
    """Controls and stimuli."""
    questions: QuestionsConfig = QuestionsConfig()
    """Questions and answers."""


class GenerateSection(GenerateConfig):
    """The YAML's section `generate`: the rows to write, and the LLM that writes them."""

    endpoint: EndpointConfig = EndpointConfig()
    """The LLM that writes."""
    prompts: str | None = None
    """Folder whose YAML files replace packaged prompts of the same name; the digests of the files
    used are part of the cache key, the path is not."""
    seeds: str | None = None
    """Folder whose YAML files replace packaged seeds of the same name."""
    earlier: tuple[str, ...] = ()
    """Earlier versions whose near-duplicates are dropped: each a REF (`scheduled:3`), a
    conversations.parquet, or a folder with one. The files' digests are part of the cache key, the
    paths are not."""


_LEAST_CONTROLS = 4
"""Of a kind: one for each split, and one more where a category is held out."""


def limit_controls(config: ConversationsConfig, controls: int) -> ConversationsConfig:
    """Limit `config` to about `controls` controls, spread evenly over its kinds.

    Each kind has enough of them for every split, whatever it had, and more of them are tested, so
    that a kind alone can be trained on and judged.
    """
    each = max(_LEAST_CONTROLS, controls // len(config.kinds))
    kinds = {
        name: plan.model_copy(
            update={
                "controls": min(max(plan.controls, _LEAST_CONTROLS), each),
                "categories": None,
            }
        )
        for name, plan in config.kinds.items()
    }
    splits = config.splits.with_changes(
        test=0.4 if config.splits.test else 0.0,
        validation=0.2 if config.splits.validation else 0.0,
    )
    return config.model_copy(update={"kinds": kinds, "splits": splits})
