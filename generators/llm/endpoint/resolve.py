"""Resolve a configured endpoint: its address, key, price, and the model's identity."""

from __future__ import annotations

import base64
import contextlib
import html
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from core.documents.canonical import canonical_json
from core.errors import ConfigError, EndpointError
from core.processes.task_pool import InProcess, TaskPool
from core.text.redact import redact_value
from generators.llm.endpoint.config import EMBEDDED, BatchConfig, EndpointConfig, Mode, Structured
from generators.llm.endpoint.embedded_server import SLOTS, embedded_server
from generators.llm.endpoint.prices import Price, TokenCounts, price_of

OPENAI_URL = "https://api.openai.com/v1"
CHAT_PATH = "/chat/completions"
_EMBEDDED_TIMEOUT_S = 600
"""Least time-out for our own server: on a busy machine it is slow, but it does not hang."""
_ANY_ENDPOINT = ("extra_body", "reasoning_effort", "thinking_tokens", "retries", "structured")
_REMOTE_ENDPOINT = (
    *("timeout_s", "probe_timeout_s", "requests_per_minute", "tokens_per_minute"),
    *("budget_usd", "mode", "batch"),
)
"""Fields that an endpoint takes over from its config as they are."""
_NO_KEY = "none"
"""Sent where no key is configured: openai's client insists on some text."""
_PUBLIC = re.compile(
    r"(?!.*(?:key|token|secret|auth|pass|cookie|sig))"
    r".*(?:version|model|deploy|region|location|title|refer|agent|accept|content|beta)",
    re.IGNORECASE,
)
"""Names of headers and of parameters of an address whose values are no secret."""
_LEAST_IN_BASE64 = 8
"""Characters of a secret that is looked for in base64 too; of a shorter one too little is left."""
_PLAIN = re.compile(r"[A-Za-z]{1,15}|[\d.:-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedEndpoint:
    """An endpoint that requests can be sent to.

    Attributes:
        base_url: address that `/chat/completions` is appended to; may have a query.
        api_key: never shown: not in a repr, a record, a log or an error.
        model: name sent with each request.
        identity: what the model is, for keys; independent of where it is reached.
        headers: further headers of every request; never shown either.
        extra_body: further fields of every request's body.
        reasoning_effort: sent with every request; None sends nothing.
        thinking_tokens: room for thought, added to each request's limit.
        timeout_s: longest wait for one whole reply, in seconds.
        probe_timeout_s: likewise for the trial request.
        retries: how often a request is repeated after a failure that may pass.
        slots: most requests at once that make sense; None for no limit.
        backoff_s: wait before the first retry, in seconds; it doubles from there.
        structured: how replies are held to their schemas.
        requests_per_minute: cap; None for none.
        tokens_per_minute: cap on prompts and replies together; None for none.
        price: of its tokens; None where it is not known.
        budget_usd: most that the replies of one table may cost; None for no limit.
        mode: whether requests are sent one by one, or put into batches.
        batch: how batches are made.
        config: from which another process can open it; None where it lives in this one.
        pool: runs pieces of long lists of requests side by side.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str
    identity: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    thinking_tokens: int = 0
    timeout_s: float = 120
    probe_timeout_s: float = 20
    retries: int = 5
    slots: int | None = None
    backoff_s: float = 0.5
    structured: Structured = "schema"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price: Price | None = None
    budget_usd: float | None = None
    mode: Mode = "live"
    batch: BatchConfig = field(default_factory=BatchConfig)
    config: EndpointConfig | None = None
    pool: TaskPool = field(default_factory=InProcess)

    def cost(self, tokens: TokenCounts, *, batched: bool = False) -> float | None:
        """Compute US dollars for `tokens`; None where the price is not known."""
        if self.price is None:
            return None
        share = self.batch.price_share if batched else 1.0
        return share * self.price.of(tokens)

    @property
    def address(self) -> str:
        """`url_without_query` as it may be shown and kept: without a key in its path either."""
        return str(redact_value(self.url_without_query, "base_url"))

    @property
    def url_without_query(self) -> str:
        """`base_url` as openai's client wants it, without a pasted `/chat/completions`."""
        parts = urlsplit(self.base_url)
        host = parts.netloc.rpartition("@")[2].lower()
        path = parts.path.rstrip("/").removesuffix(CHAT_PATH).rstrip("/")
        return f"{parts.scheme}://{host}{path}"

    @property
    def all_headers(self) -> dict[str, str]:
        """`headers`, and the address's user and password where there is no key."""
        user = _user_of(self.base_url)
        if self.api_key != _NO_KEY or not user:
            return dict(self.headers)
        return {"Authorization": f"Basic {user}", **self.headers}

    @property
    def query(self) -> dict[str, str]:
        """Parameters that every request carries in its address."""
        return _query_of(self.base_url)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown: the key, values of headers, what the address hides."""
        key = "" if self.api_key == _NO_KEY else self.api_key
        return _find_secrets(self.base_url, key, tuple(self.headers.items()))

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key, a password or a secret header."""
        return self.api_key != _NO_KEY or bool(self.secrets)

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, which a proxy for the outside world cannot reach."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
            return address.is_loopback or address.is_unspecified
        except ValueError:
            return host == "localhost"


def _user_of(base_url: str) -> str:
    """Write user and password of an address as HTTP wants them; empty without any."""
    parts = urlsplit(base_url)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return base64.b64encode(pair.encode()).decode()


def _query_of(base_url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(base_url).query, keep_blank_values=True))


@lru_cache(maxsize=16)
def _find_secrets(base_url: str, key: str, headers: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """List what is not to be shown, in every spelling, the longest first."""
    parts = urlsplit(base_url)
    named = (*_query_of(base_url).items(), *headers)
    given = [key, _user_of(base_url), parts.password or ""]
    given += [value for name, value in named if not _PUBLIC.match(name)]
    # an address with a user alone has a token for one
    given.append(unquote(parts.password or parts.username or ""))
    spelled = {form for one in given for form in _spellings(one)}
    return tuple(sorted((one for one in spelled if len(one) > 4), key=len, reverse=True))


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as servers repeat it: plain, in an address, JSON, HTML or base64."""
    quoted = (quote(secret, safe=""), quote(secret), quote_plus(secret))
    yield from (secret, *quoted, json.dumps(secret)[1:-1], html.escape(secret))
    yield from (re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), one) for one in quoted)
    if len(secret) >= _LEAST_IN_BASE64:
        data = secret.encode()
        # a text around it shifts it: the characters that it alone decides, at each shift
        for shift in range(3):
            bits = slice(-(-8 * shift // 6), 8 * (shift + len(data)) // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                yield encode(bytes(shift) + data + bytes(3))[bits].decode()


def redact_secrets(endpoint: ResolvedEndpoint, text: str, *, words_too: bool = True) -> str:
    """Strike the key and every other secret of `endpoint` out of `text`.

    Args:
        endpoint: whose secrets they are.
        text: what is shown or kept.
        words_too: strike also a key that is a word, a number or a date, such as `EMPTY`, which a
            reply may have for reasons of its own.
    """
    for secret in endpoint.secrets:
        if not _PLAIN.fullmatch(secret):
            text = text.replace(secret, "[key]")
        elif words_too:
            text = re.sub(rf"\b{re.escape(secret)}\b", "[key]", text)
    return text


def redact_body(endpoint: ResolvedEndpoint, raw: str) -> str:
    """Strike the secrets of `endpoint` out of a response, whose other words stay as they are."""
    return redact_secrets(endpoint, raw, words_too=False)


def model_identity(config: EndpointConfig, weights: str | None = None) -> str:
    """Name what decides the replies: the packaged weights' digest, else name and revision.

    What a reasoning model is told is part of it, where it is told anything.

    Args:
        config: the endpoint.
        weights: digest of the GGUF file; needed for `embedded`.
    """
    if config.model == EMBEDDED:
        if weights is None:
            raise ValueError("the embedded model's identity is its weights' digest; pass it")
        name = f"gguf:{weights}"
    else:
        name = f"{config.model}@{config.revision}" if config.revision else config.model
    told: dict[str, Any] = {
        "extra_body": config.extra_body,
        "reasoning_effort": config.reasoning_effort,
        "thinking_tokens": config.thinking_tokens,
    }
    told = {field: value for field, value in told.items() if value}
    if not told:
        return name
    try:
        return f"{name} {canonical_json(told).decode()}"
    except TypeError as error:
        raise ConfigError(f"endpoint.extra_body: {error}") from error


@contextlib.contextmanager
def open_endpoint(
    config: EndpointConfig,
    *,
    gguf: Path | None = None,
    weights: str | None = None,
    threads: int | None = None,
    pool: TaskPool | None = None,
) -> Iterator[ResolvedEndpoint]:
    """Open the endpoint of `config`, for as long as the context lasts.

    The embedded model's server lives inside the context, so leave it before torch works.

    Args:
        config: the endpoint.
        gguf: the embedded model's weights; needed for `embedded` alone.
        weights: their digest.
        threads: CPU threads of the embedded server; None for all.
        pool: runs pieces of long lists of requests side by side; None for none.

    Raises:
        EndpointError: the key's environment variable is not set, or the embedded server did not
            start.
        ConfigError: the table of prices is wrong, or there is a budget and no price.
    """
    identity, price = model_identity(config, weights), price_of(config)
    if config.model == EMBEDDED:
        if gguf is None:
            raise ValueError("the embedded endpoint needs the path of its GGUF file")
        with embedded_server(gguf, threads=threads) as server:
            yield ResolvedEndpoint(
                base_url=server.base_url,
                api_key=server.api_key,
                model=server.model,
                identity=identity,
                slots=SLOTS,
                price=price,
                timeout_s=max(config.timeout_s, _EMBEDDED_TIMEOUT_S),
                probe_timeout_s=max(config.probe_timeout_s, _EMBEDDED_TIMEOUT_S),
                **_configured(config, _ANY_ENDPOINT),
            )
        return
    headers = {
        header: _variable(name, f"extra_headers.{header}")
        for header, name in config.extra_headers.items()
    }
    yield ResolvedEndpoint(
        base_url=config.base_url or OPENAI_URL,
        api_key=_key(config),
        model=config.model,
        identity=identity,
        headers=headers,
        price=price,
        config=config,
        pool=pool or InProcess(),
        **_configured(config, (*_ANY_ENDPOINT, *_REMOTE_ENDPOINT)),
    )


def _configured(config: EndpointConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields that an endpoint takes over from its config as they are."""
    return {name: getattr(config, name) for name in names}


def _key(config: EndpointConfig) -> str:
    is_openai = urlsplit(config.base_url or OPENAI_URL).hostname == urlsplit(OPENAI_URL).hostname
    name = config.api_key_env or ("OPENAI_API_KEY" if is_openai else None)
    return _NO_KEY if name is None else _variable(name, "api_key_env")


def _variable(name: str, field_name: str) -> str:
    """Read the environment variable `name`, which `field_name` of the endpoint asks for."""
    value = os.environ.get(name, "").strip()
    # a name without an underscore and with digits may be a key that was pasted here
    shown = name if "_" in name or name.isalpha() else "that it names"
    if not value:
        raise EndpointError(
            f"generate.endpoint.{field_name}: the environment variable {shown} is not set. Export "
            "the value under that name, or set generate.endpoint to a server that needs none."
        )
    if not (value.isascii() and value.isprintable()):
        raise EndpointError(
            f"generate.endpoint.{field_name}: the environment variable {shown} holds characters "
            "that no key has (a line break, or some outside ASCII). Export the value alone."
        )
    return value
