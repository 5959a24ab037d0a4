"""Prices of tokens: a table that the user edits, never a guess.

The packaged `prices.yaml` lists models by the host that offers them, with its port where several
servers share one; `generate.endpoint.prices` names a file of the same form whose lines win. A model
that neither lists has no price, and what it costs is null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.documents.yaml_values import parse_yaml, read_yaml
from core.errors import ConfigError
from core.text.redact import redact
from generators.llm.endpoint.config import EMBEDDED, EndpointConfig

_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|20\d{6})$")
_MILLION = 1_000_000
_OPENAI_HOST = "api.openai.com"
_FIELDS = {"input", "output"}
_ANYWHERE = ""
"""Stands for every host."""

PriceTable = dict[tuple[str, str], "Price"]
"""(host, or host:port; model) → price."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of one request, or of many.

    Attributes:
        prompt: tokens of the prompt, those out of the provider's cache included.
        completion: tokens of the reply, its thought included.
        cached: tokens of the prompt that the provider had in its cache.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0


NO_TOKENS = TokenCounts()


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        input: of the prompt.
        output: of the reply.
        cached_input: of those tokens of the prompt that the provider had in its cache; None where
            they cost as much as others.
    """

    input: float
    output: float
    cached_input: float | None = None

    def of(self, tokens: TokenCounts) -> float:
        """Compute US dollars for `tokens`."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        cached = min(tokens.cached, tokens.prompt)
        uncached = tokens.prompt - cached
        total = uncached * self.input + cached * cached_price + tokens.completion * self.output
        return total / _MILLION


def price_of(config: EndpointConfig) -> Price | None:
    """Look up the price of the model of `config`; None where no table lists it.

    A dated name (`gpt-4.1-mini-2025-04-14`) has the price of the name without its date, unless it
    has a line of its own. The embedded model costs nothing.

    Raises:
        ConfigError: the user's table cannot be read, or there is a budget and no price.
    """
    if config.model == EMBEDDED:
        return Price(input=0.0, output=0.0)
    packaged = files("generators.llm.endpoint") / "prices.yaml"
    tables = [_table("prices.yaml", packaged.read_bytes())]
    if config.prices is not None:
        tables.insert(0, _own_table(config.prices))
    host, *with_port = _hosts(config.base_url or f"https://{_OPENAI_HOST}")
    names = dict.fromkeys((config.model, _DATE.sub("", config.model)))
    places = [(at, name) for name in names for at in (*with_port, host, _ANYWHERE)]
    found = (table.get(place) for table in tables for place in places)
    price = next((one for one in found if one is not None), None)
    if price is None and config.budget_usd is not None:
        raise ConfigError(
            f"generate.endpoint.budget_usd: no price is known for {config.model!r} at {host}, so a "
            f"budget cannot be kept. Write `{config.model}: {{input: …, output: …}}` (US dollars "
            "per million tokens) into a YAML file and name it at generate.endpoint.prices."
        )
    return price


def _hosts(address: str) -> list[str]:
    """Return the host of an address, and with its port where it names one."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    host = parts.hostname or ""
    return [host] if parts.port is None else [host, f"{host}:{parts.port}"]


def _own_table(prices: str) -> PriceTable:
    """Read the user's table.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        own = Path(prices).expanduser()
        return _table(str(own), read_yaml(own))
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"generate.endpoint.prices: cannot read {redact(prices)} ({said}); expected a YAML "
            "file with lines such as `my-model: {input: 0.4, output: 1.6}`."
        ) from error


def _table(where: str, data: bytes | str) -> PriceTable:
    lines = parse_yaml(data, where, "prices")
    if not isinstance(lines, dict):
        raise ConfigError(f"{where}: expected a mapping of model names to prices.")
    table: PriceTable = {}
    for name, line in lines.items():
        if isinstance(line, dict) and line and all(isinstance(one, dict) for one in line.values()):
            try:
                host = _hosts(name)[-1]
            except ValueError as error:
                raise ConfigError(f"{where}: {name!r} is no host ({error}).") from error
            for model, price in line.items():
                table[host, str(model)] = _price(f"{where}: {name}: {model}", price)
        else:
            table[_ANYWHERE, str(name)] = _price(f"{where}: {name}", line)
    return table


def _price(where: str, line: Any) -> Price:
    if not (
        isinstance(line, Mapping)
        and _FIELDS <= set(line) <= {*_FIELDS, "cached_input"}
        # exact types: YAML's `true` is an int to Python
        and all(
            type(value) in (int, float) and 0 <= value < float("inf") for value in line.values()
        )
    ):
        raise ConfigError(
            f"{where}: got {line!r}, expected {{input: DOLLARS, output: DOLLARS}} per million "
            "tokens, and cached_input where it has a price of its own."
        )
    return Price(**{field: float(value) for field, value in line.items()})
