"""What decides a generated dataset, and where its LLM is reached.

Conversations and questions are two artifacts, so their configs are two types: a change in
`QuestionsConfig` leaves the conversations, and all that is made from them, as they are.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from generators.config import Config
from generators.import_config import SplitConfig
from generators.schema import View

QuestionType = Literal[
    "description",
    "prediction",
    "extraction",
    "single_fact",
    "two_hop",
    "comparison",
    "counting",
    "negation",
    "before",
    "after",
]
"""What a question asks for; a profile's grades are types, so that whatever groups by type also
reads results by grade."""
Structured = Literal["auto", "schema", "json", "prompt"]
Mode = Literal["live", "batch"]

EMBEDDED = "embedded"
"""The name under which `endpoint.model` asks for the packaged model."""


class SamplingConfig(Config):
    """How the LLM samples; null leaves a setting to the server and sends nothing."""

    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """Sampling temperature."""
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    """Probability mass of the tokens that are sampled from."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Penalty on tokens for each time they have been used."""
    seed: int = 0
    """Seed of the server's sampling; each request's own seed is derived from it."""


class FilterConfig(Config):
    """Which rows are dropped; every dropped row is kept aside with its reason."""

    near_duplicate: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity (MinHash over runs of 5 characters) to a kept row, a seed or a few-shot
    example from which a row is a near-duplicate."""
    repetition: float = Field(default=0.7, ge=0, le=1)
    """Least share of distinct runs of three words; a text below it repeats itself."""
    copied_words: int = Field(default=3, ge=2)
    """Content words in a row that, taken over from a few-shot example, make a copied reply."""
    shared_words: int = Field(default=2, ge=1)
    """Content words shared by stimulus and control from which the stimulus gives the control away;
    one is enough where it stands in the label."""
    specific: bool = True
    """Drop answers that share no content word with their control."""


class TextSource(Config):
    """Texts to cut rows from; a plain string stands for its `path`."""

    path: str
    """A file (.txt, .md, .jsonl, .parquet), a folder of them, a folder that `datasets` saved, or
    the id of a Hugging Face dataset. What lies there is part of the identity, the path is not."""
    revision: str | None = None
    """Revision of a Hugging Face dataset; null for the newest, whose commit is then looked up."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset; null for its default."""
    split: str = "train"
    """Split of a Hugging Face dataset or of a folder that `datasets` saved."""
    column: str = "text"
    """Column with the text, except in .txt and .md files."""
    category: str | None = None
    """Column with the category; null takes a folder's first sub-folder, or `text`."""
    windows: int = Field(default=4, ge=1)
    """Most rows of one document."""
    characters: int = Field(default=240, ge=40, le=20_000)
    """Length of a control and of the passage after it, in characters; answers have a third."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given


class KindPlan(Config):
    """What is made of one kind of control."""

    controls: int = Field(default=24, ge=1)
    """Controls that are planned; replies that are dropped are replaced within `over_ask`, and a
    source of texts may end before."""
    categories: dict[str, int] | None = None
    """Controls of each category, which make up `controls`; null for all categories by turns."""
    views: tuple[View, ...] | None = None
    """Views of each control; null for all that the kind has. `stimulus_completion` is added by the
    step `complete`."""
    source: TextSource | None = None
    """Where the texts of a kind that is cut from texts (`context`) come from."""

    @model_validator(mode="after")
    def _categories_make_up_controls(self) -> KindPlan:
        if self.categories is None:
            return self
        if not self.categories or min(self.categories.values()) < 1:
            raise ValueError("categories: expected at least one, each with a number above 0")
        total = sum(self.categories.values())
        if "controls" in self.model_fields_set and self.controls != total:
            raise ValueError(
                f"controls: got {self.controls}, and {total} in all categories; leave one out"
            )
        # the default is what the categories make up; a frozen model is set before anyone sees it
        object.__setattr__(self, "controls", total)
        return self

    @field_validator("views")
    @classmethod
    def _made_here(cls, views: tuple[View, ...] | None) -> tuple[View, ...] | None:
        if views is not None and (
            "stimulus_completion" in views or not views or len(set(views)) != len(views)
        ):
            raise ValueError("expected distinct views among control, stimulus, system")
        return views


class ConversationsConfig(Config):
    """What decides the controls and stimuli."""

    kinds: dict[str, KindPlan] = Field(
        default_factory=lambda: {name: KindPlan() for name in ("persona", "goal", "extractive")}
    )
    """Kinds of controls (generators/kinds), each with its plan."""
    sampling: SamplingConfig = SamplingConfig()
    """How controls and stimuli are sampled."""
    filters: FilterConfig = FilterConfig()
    """Which replies are dropped."""
    over_ask: float = Field(default=2.0, ge=1)
    """Most requests for a planned row, on average over its quota, replacements included."""
    splits: SplitConfig = SplitConfig()
    """Grouped splits; name at least one category of each kind in `test_ood`."""
    seed: int = 0
    """Seed of all that is drawn here: order of categories, openings, subjects of stimuli."""

    @field_validator("kinds")
    @classmethod
    def _some(cls, kinds: dict[str, KindPlan]) -> dict[str, KindPlan]:
        if not kinds:
            raise ValueError("expected at least one kind")
        return kinds


class QuestionsConfig(Config):
    """What decides the questions about given conversations."""

    per_control: int = Field(default=5, ge=1, le=16)
    """Questions for each control, divided evenly among the types that its kind has."""
    types: tuple[QuestionType, ...] | None = None
    """Types of questions; null for all that a kind has. `description` of the control, `prediction`
    of replies under it, `extraction` of what a passage says; of profiles `single_fact`, `two_hop`,
    `comparison`, `counting`, `negation`; of texts what stood `before` and what comes `after`."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.3)
    """How questions and answers are sampled."""
    filters: FilterConfig = FilterConfig()
    """Which replies are dropped."""
    over_ask: float = Field(default=2.0, ge=1)
    """Most requests for a planned question, on average over its quota, replacements included."""
    seed: int = 0
    """Seed of all that is drawn here: paraphrases of questions, subjects of predictions."""

    @field_validator("types")
    @classmethod
    def _distinct(cls, types: tuple[QuestionType, ...] | None) -> tuple[QuestionType, ...] | None:
        if types is not None and (not types or len(set(types)) != len(types)):
            raise ValueError(f"expected distinct types among {', '.join(get_args(QuestionType))}")
        return types


class BatchConfig(Config):
    """How requests are put into the endpoint's batches (`mode: batch`)."""

    poll_s: float = Field(default=30, gt=0)
    """Seconds between two looks at how far the batches are."""
    requests: int = Field(default=50_000, ge=1, le=50_000)
    """Most requests of one batch; fewer where the provider limits what may wait at once."""
    megabytes: float = Field(default=200, gt=0, le=200)
    """Longest file of one batch, in millions of bytes."""
    rounds: int = Field(default=3, ge=1)
    """Batches of one run that a request is put into at most, where they expire or lose it."""
    smallest: int = Field(default=1, ge=1)
    """Fewer new requests than this are asked live: at once, and at the full price."""
    fall_back: bool = False
    """Whether what the batches leave without a reply is asked live, and replies that break their
    schema are asked for live once more."""
    price_share: float = Field(default=0.5, ge=0, le=1)
    """What a batched reply costs, as a share of the model's price."""
    resubmit_unknown: bool = False
    """Whether requests of a batch that the endpoint does not know any more are submitted anew,
    which may pay for them twice; else the run ends and says so (the key may be another's)."""


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint: which model writes, and where it is reached.

    `model`, `revision` and `structured` decide results; the rest is where, how fast and for how
    much, and is never hashed.
    """

    model: str = EMBEDDED
    """Name of the model at the endpoint; `embedded` serves SmolLM2-135M-Instruct from this
    machine's CPU and needs no address."""
    revision: str | None = None
    """Free text that tells versions of the same model name apart."""
    base_url: str | None = None
    """Address up to and including `/v1`; null is OpenAI's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null sends none (for OpenAI's own
    address it is OPENAI_API_KEY)."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for one reply, in seconds."""
    probe_timeout_s: float = Field(default=20, gt=0)
    """Longest wait for the one trial request before any work, in seconds."""
    retries: int = Field(default=5, ge=0)
    """How often a request is repeated after 429, 5xx, a time-out or a broken reply."""
    structured: Structured = "schema"
    """How replies are held to their schemas: the endpoint enforces them (`schema`), it enforces
    JSON and the prompt states them (`json`), or the prompt alone does (`prompt`); `auto` takes the
    first of these that a trial request shows to work."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Cap on requests a minute, spaced evenly; null for none."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Cap on tokens a minute, prompts and replies together; null for none."""
    prices: str | None = None
    """YAML file of prices, `model: {input: …, output: …}` in US dollars per million tokens; its
    lines win over the packaged ones. A model in neither costs null."""
    budget_usd: float | None = Field(default=None, gt=0)
    """Most that the replies of one table may cost, in US dollars, those that earlier runs bought
    included; before it would be passed the run ends with one line. Null for no limit."""
    mode: Mode = "live"
    """`live` asks requests one by one, `batch` through the endpoint's batch API, for less money and
    within a day; both share all replies."""
    batch: BatchConfig = BatchConfig()
    """How batches are made."""

    @model_validator(mode="after")
    def _embedded_is_here(self) -> EndpointConfig:
        if self.model == EMBEDDED and self.base_url is not None:
            raise ValueError(
                "model 'embedded' takes no base_url; name the model that the address serves"
            )
        if self.model == EMBEDDED and self.mode == "batch":
            raise ValueError("model 'embedded' has no batches; use mode: live")
        return self


class GenerateConfig(Config):
    """What decides the rows, given the model, the prompts and the seeds."""

    conversations: ConversationsConfig = ConversationsConfig()
    """Controls and stimuli."""
    questions: QuestionsConfig = QuestionsConfig()
    """Questions and answers."""


class GenerateSection(GenerateConfig):
    """The YAML's section `generate`: a dataset, and where its LLM and its texts are."""

    endpoint: EndpointConfig = EndpointConfig()
    """The LLM."""
    prompts: str | None = None
    """Folder whose YAML files replace packaged prompts of the same name; the digests of the files
    used are part of the identity, the path is not."""
    seeds: str | None = None
    """Folder whose YAML files replace packaged seeds of the same name."""
    earlier: tuple[str, ...] = ()
    """Earlier versions, each a conversations.parquet or the folder that holds it: a control nearly
    one of theirs is dropped. The files' digests are part of the identity, the paths are not."""


def at_most(config: ConversationsConfig, controls: int) -> ConversationsConfig:
    """`config` with no more than `controls` controls in all, spread evenly over its kinds."""
    each = max(1, controls // len(config.kinds))
    kinds = {
        name: plan.model_copy(update={"controls": min(plan.controls, each), "categories": None})
        for name, plan in config.kinds.items()
    }
    return config.model_copy(update={"kinds": kinds})
