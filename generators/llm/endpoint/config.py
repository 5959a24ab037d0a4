"""Settings of an LLM endpoint: which model writes, how it samples, and where it is reached."""

from __future__ import annotations

import json
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from core.config import Config
from core.text.redact import redact_value

Structured = Literal["auto", "schema", "json", "prompt"]
Mode = Literal["live", "batch"]

EMBEDDED = "embedded"
"""Value of `endpoint.model` that asks for the packaged model."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CREDENTIAL = re.compile(
    r'"[^"]*(?:api[_-]?key|authorization|password|secret|access[_-]?token)"\s*:\s*"[^"]{8,}"'
    r'|"(?:Bearer )?(?:sk|hf|gsk|xai|ghp)[-_][A-Za-z0-9_-]{16,}"',
    re.IGNORECASE,
)
_OWN_FIELDS = {
    "model": "endpoint.model",
    "messages": "prompts",
    "stream": "nothing: replies are read whole",
    "n": "nothing: each reply is a request",
    "max_tokens": "the prompt files' max_tokens",
    "max_completion_tokens": "the prompt files' max_tokens",
    "response_format": "endpoint.structured",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "frequency_penalty": "sampling.frequency_penalty",
    "seed": "sampling.seed",
    "reasoning_effort": "endpoint.reasoning_effort",
}
"""Fields of a request that are set from elsewhere, and from where."""


class SamplingConfig(Config):
    """How the LLM samples; null leaves a setting to the server and sends nothing."""

    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """Sampling temperature."""
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    """Probability mass of the tokens that are sampled from."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Penalty on tokens for each time they have been used."""
    seed: int | None = 0
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

    `model`, `revision`, `structured`, `reasoning_effort`, `thinking_tokens` and `extra_body` decide
    results; the rest is where, how fast and for how much, and is never hashed.
    """

    model: str = EMBEDDED
    """Name of the model at the endpoint; `embedded` serves SmolLM2-135M-Instruct from this
    machine's CPU and needs no address."""
    revision: str | None = None
    """Free text that tells versions of the same model name apart."""
    base_url: str | None = None
    """Address that `/chat/completions` is appended to, usually ending with `/v1`; a query such as
    `?api-version=…` is sent with every request. Null is OpenAI's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; null sends none (for OpenAI's own
    address it is OPENAI_API_KEY)."""
    extra_headers: dict[str, str] = Field(default_factory=dict)
    """Further headers of every request: header → name of the environment variable that holds its
    value."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request's body, such as `chat_template_kwargs`."""
    reasoning_effort: str | None = None
    """How long a reasoning model thinks, in its server's words (`low`, `high`, …); null sends
    nothing."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Tokens of room for a model's thought, which are added to each request's limit; servers count
    thought and answer together."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for one whole reply, in seconds."""
    probe_timeout_s: float = Field(default=20, gt=0)
    """Longest wait for the one trial request before any work, in seconds."""
    retries: int = Field(default=5, ge=0)
    """How often a request is repeated after 5xx, a time-out or a broken reply. After 429, 503 or
    529 it is repeated as long as the endpoint answers others."""
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

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        shown = redact_value(base_url, "base_url")
        expected = "expected an address such as http://localhost:8000/v1"
        try:
            parts = urlsplit(base_url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
            parts.port  # noqa: B018  # raises where it is no number
        except ValueError:
            raise ValueError(f"{shown!r} is no address; {expected}") from None
        if not known:
            raise ValueError(f"{shown!r} does not begin with http:// or https://; {expected}")
        if parts.fragment or any(character.isspace() for character in base_url):
            raise ValueError(f"{shown!r} has a fragment or white space; {expected}")
        return base_url

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        # what was given is not repeated: it may be the key itself
        if name is not None and not _VARIABLE.fullmatch(name):
            raise ValueError(
                "expected the name of an environment variable in capitals, such as OPENAI_API_KEY, "
                "and never the key itself; export the key under a name and write the name here"
            )
        return name

    @field_validator("extra_headers")
    @classmethod
    def _headers_name_variables(cls, headers: dict[str, str]) -> dict[str, str]:
        for header, name in headers.items():
            if not _HEADER.fullmatch(header):
                raise ValueError(f"{header!r} is no name of a header")
            if not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{header}: expected the name of an environment variable in capitals that "
                    "holds the header's value, never the value itself"
                )
        return headers

    @field_validator("extra_body")
    @classmethod
    def _leaves_own_fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        for field in body:
            if field in _OWN_FIELDS:
                raise ValueError(f"{field} is not set here, but by {_OWN_FIELDS[field]}")
        # the body is part of what the model is, and so of keys, records and reports
        if _CREDENTIAL.search(json.dumps(body, default=str)):
            raise ValueError(
                "holds what looks like a credential, and all of it is kept in records; send it by "
                "extra_headers or api_key_env, which name variables"
            )
        return body

    @model_validator(mode="after")
    def _embedded_is_local(self) -> EndpointConfig:
        if self.model == EMBEDDED and self.base_url is not None:
            raise ValueError(
                "model 'embedded' takes no base_url; name the model that the address serves"
            )
        if self.model == EMBEDDED and self.mode == "batch":
            raise ValueError("model 'embedded' has no batches; use mode: live")
        return self
