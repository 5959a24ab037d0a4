"""Settings of an LLM endpoint: which model writes, how it samples, and where it is reached."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from core.config import Config
from core.text.redact import VARIABLE, holds_credential, redact, redact_value

Structured = Literal["auto", "schema", "json", "prompt"]
Mode = Literal["live", "batch"]

EMBEDDED = "embedded"
"""Value of `endpoint.model` that asks for the packaged model."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
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
    """How the LLM samples; null leaves a setting to the server."""

    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """Sampling temperature."""
    top_p: float | None = Field(default=0.95, gt=0, le=1)
    """Probability mass of the likeliest tokens that are sampled from."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Penalty on a token for each time it has been used."""
    seed: int | None = 0
    """Seed from which each request's own sampling seed is derived."""


class BatchConfig(Config):
    """How requests are put into the endpoint's batches (`mode: batch`)."""

    poll_s: float = Field(default=30, gt=0)
    """Seconds between two checks of the batches' progress."""
    requests: int = Field(default=50_000, ge=1, le=50_000)
    """Most requests per batch; fewer if the provider limits the number queued."""
    megabytes: float = Field(default=200, gt=0, le=200)
    """Largest file of one batch, in millions of bytes."""
    rounds: int = Field(default=3, ge=1)
    """Most batches per run that a request is put into, if batches expire or lose it."""
    smallest: int = Field(default=1, ge=1)
    """Number of new requests below which they are sent live, at once and at full price."""
    fall_back: bool = False
    """Whether requests that batches leave unanswered are sent live, and replies that break their
    schema are requested once more live."""
    price_share: float = Field(default=0.5, ge=0, le=1)
    """Price of a batched reply, as a share of the model's price."""
    resubmit_unknown: bool = False
    """Whether requests of a batch that the endpoint no longer knows are submitted again, which may
    cost twice. Otherwise the run ends with an error (the batch may belong to another key)."""


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint: which model writes, and how it is reached.

    `model`, `revision`, `structured`, `reasoning_effort`, `thinking_tokens` and `extra_body` decide
    results; the other fields set place, speed and cost, and are never hashed.
    """

    model: str = EMBEDDED
    """Name of the model at the endpoint; `embedded` runs SmolLM2-135M-Instruct on this machine's
    CPU and needs no address."""
    revision: str | None = None
    """Free text that distinguishes versions of the same model name."""
    base_url: str | None = None
    """Address to which `/chat/completions` is appended, usually ending with `/v1`; a query such as
    `?api-version=…` is sent with every request. Null is OpenAI's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the API key; null sends none (OPENAI_API_KEY for
    OpenAI's own address)."""
    extra_headers: dict[str, str] = Field(default_factory=dict)
    """Further headers of every request, as header: name of the environment variable with its
    value."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every request's body, such as `chat_template_kwargs`."""
    reasoning_effort: str | None = None
    """Thinking effort of a reasoning model, as its server names it (`low`, `high`, …); null sends
    nothing."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Tokens for a model's thinking, added to each request's limit, because servers count thinking
    and answer together."""
    timeout_s: float = Field(default=120, gt=0)
    """Longest wait for a whole reply, in seconds."""
    probe_timeout_s: float = Field(default=20, gt=0)
    """Longest wait for the trial request before any work, in seconds."""
    retries: int = Field(default=5, ge=0)
    """Retries of a request after 5xx, a time-out or a broken reply. After 429, 503 or 529 it is
    repeated as long as the endpoint answers others."""
    structured: Structured = "schema"
    """How replies are made to match their schemas: `schema` has the endpoint enforce them; `json`
    has it enforce JSON, with the schema in the prompt; `prompt` uses the prompt alone; `auto` takes
    the first of these that works in a trial request."""
    requests_per_minute: float | None = Field(default=None, ge=0.01)
    """Most requests per minute, evenly spaced; null for no limit."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Most tokens per minute, prompts and replies together; null for no limit."""
    prices: str | None = None
    """YAML file of prices in US dollars per million tokens, `model: {input: …, output: …}` or by
    server, `host: {model: {…}}`; it takes precedence over the packaged prices. Without a price the
    cost is null."""
    budget_usd: float | None = Field(default=None, gt=0)
    """Most that the replies of one table may cost in US dollars, earlier runs included; the run
    ends before it would be exceeded. Null for no limit."""
    mode: Mode = "live"
    """`live` sends requests one by one; `batch` uses the endpoint's batch API, which is cheaper and
    takes up to a day. Both share all replies."""
    batch: BatchConfig = BatchConfig()
    """How batches are formed."""

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
            (parts.hostname or "").encode("idna")  # or where a part of the name is empty or long
        except ValueError:
            raise ValueError(f"{shown!r} is not an address; {expected}") from None
        if not known:
            raise ValueError(f"{shown!r} does not begin with http:// or https://; {expected}")
        if parts.fragment or not base_url.isprintable() or any(one in base_url for one in " \\"):
            raise ValueError(f"{shown!r} has a fragment, white space or a backslash; {expected}")
        return base_url

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        # what was given is not repeated: it may be the key itself
        if name is not None and not VARIABLE.fullmatch(name):
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
                # a value may stand in it
                name = redact(header.partition(":")[0])
                raise ValueError(f"{name!r} is not the name of a header alone")
            if not VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{redact(header)}: expected the name of an environment variable in capitals "
                    "that holds the header's value, never the value itself"
                )
        return headers

    @field_validator("extra_body")
    @classmethod
    def _leaves_own_fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        for field in body:
            if field in _OWN_FIELDS:
                raise ValueError(f"{field} is not set here, but by {_OWN_FIELDS[field]}")
        # the body is part of what the model is, and so of keys, records and reports
        if holds_credential(body):
            raise ValueError(
                "holds what looks like a credential, and all of it is kept in records; send it by "
                "extra_headers or api_key_env, which name variables"
            )
        return body

    @model_validator(mode="after")
    def _has_one_authorization(self) -> EndpointConfig:
        if self.api_key_env and self.base_url and urlsplit(self.base_url).username is not None:
            raise ValueError(
                "base_url has a user or a password, and api_key_env names a key, but a request "
                "carries one of them; remove the other"
            )
        return self

    @model_validator(mode="after")
    def _embedded_is_local(self) -> EndpointConfig:
        if self.model == EMBEDDED and self.base_url is not None:
            raise ValueError(
                "model 'embedded' takes no base_url; name the model that the address serves"
            )
        if self.model == EMBEDDED and self.mode == "batch":
            raise ValueError("model 'embedded' has no batches; use mode: live")
        return self
