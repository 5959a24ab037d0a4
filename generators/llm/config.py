"""What decides an LLM's replies, and where it is reached."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.config import Config

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
