"""From the config's endpoint to one that can be asked: address, key, and the model's identity."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from core.errors import EndpointError
from generators.llm.config import EMBEDDED, BatchConfig, EndpointConfig, Mode, Structured
from generators.llm.embedded_server import SLOTS, embedded_server
from generators.llm.prices import Price, price_of

_PATIENCE_S = 600
"""Least time-out for our own server: on a busy machine it is slow, but it does not hang."""
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedEndpoint:
    """An endpoint that can be asked.

    Attributes:
        base_url: address, with `/v1`.
        api_key: never shown: not in a repr, a record, a log or an error.
        model: name sent with each request.
        identity: what the model is, for keys; independent of where it is reached.
        slots: most requests at once that make sense; None for no limit.
        backoff_s: wait before the first retry, in seconds; it doubles from there.
        structured: how replies are held to their schemas.
        requests_per_minute: cap; None for none.
        tokens_per_minute: cap on prompts and replies together; None for none.
        price: of its tokens; None where it is not known.
        budget_usd: most that the replies of one table may cost; None for no limit.
        mode: whether requests are asked one by one, or put into batches.
        batch: how batches are made.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str
    identity: str
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

    def cost(
        self, prompt_tokens: int, completion_tokens: int, *, batched: bool = False
    ) -> float | None:
        """US dollars for so many tokens; None where the price is not known."""
        if self.price is None:
            return None
        share = self.batch.price_share if batched else 1.0
        return share * self.price.of(prompt_tokens, completion_tokens)

    @property
    def address(self) -> str:
        """`base_url` as it may be shown: without user, password and query."""
        at = urlsplit(self.base_url)
        return f"{at.scheme}://{at.hostname}{f':{at.port}' if at.port else ''}{at.path}"

    @property
    def proxied(self) -> bool:
        """Whether the environment puts a proxy before it.

        A proxy set for the outside world cannot reach this machine's own servers.
        """
        at = urlsplit(self.base_url)
        host = at.hostname or ""
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = host == "localhost"
        proxies = getproxies()
        return not local and (at.scheme in proxies or "all" in proxies) and not proxy_bypass(host)


def model_identity(config: EndpointConfig, weights: str | None = None) -> str:
    """What decides the replies: the packaged weights' digest, else name and revision.

    Args:
        config: the endpoint.
        weights: digest of the GGUF file; needed for `embedded`.
    """
    if config.model == EMBEDDED:
        if weights is None:
            raise ValueError("the embedded model's identity is its weights' digest; pass it")
        return f"gguf:{weights}"
    return f"{config.model}@{config.revision}" if config.revision else config.model


@contextlib.contextmanager
def open_endpoint(
    config: EndpointConfig,
    *,
    gguf: Path | None = None,
    weights: str | None = None,
    threads: int | None = None,
) -> Iterator[ResolvedEndpoint]:
    """The endpoint of `config`, for as long as the context lasts.

    The embedded model's server lives inside the context, so leave it before torch works.

    Args:
        config: the endpoint.
        gguf: the embedded model's weights; needed for `embedded` alone.
        weights: their digest.
        threads: CPU threads of the embedded server; None for all.

    Raises:
        EndpointError: the key's environment variable is not set, or the embedded server did not
            start.
        ConfigError: the table of prices is wrong, or there is a budget and no price.
    """
    identity = model_identity(config, weights)
    price = price_of(config)
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
                timeout_s=max(config.timeout_s, _PATIENCE_S),
                probe_timeout_s=max(config.probe_timeout_s, _PATIENCE_S),
                retries=config.retries,
                structured=config.structured,
                price=price,
            )
        return
    yield ResolvedEndpoint(
        base_url=(config.base_url or OPENAI_URL).rstrip("/"),
        api_key=_key(config),
        model=config.model,
        identity=identity,
        timeout_s=config.timeout_s,
        probe_timeout_s=config.probe_timeout_s,
        retries=config.retries,
        structured=config.structured,
        requests_per_minute=config.requests_per_minute,
        tokens_per_minute=config.tokens_per_minute,
        price=price,
        budget_usd=config.budget_usd,
        mode=config.mode,
        batch=config.batch,
    )


def _key(config: EndpointConfig) -> str:
    name = config.api_key_env or (None if config.base_url else "OPENAI_API_KEY")
    if name is None:
        return "none"  # the openai client insists on some text; servers without keys ignore it
    key = os.environ.get(name, "").strip()
    if not key:
        raise EndpointError(
            f"generate.endpoint.api_key_env: the environment variable {name} is not set. Export "
            "the key under that name, or set generate.endpoint to a server that needs none."
        )
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(
            f"generate.endpoint.api_key_env: the environment variable {name} holds characters that "
            "no key has (a line break, or some outside ASCII). Export the key alone."
        )
    return key
