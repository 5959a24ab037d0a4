"""What tokens cost: a table that the user edits, never a guess.

The packaged `prices.yaml` lists some hosted models; `generate.endpoint.prices` names a file of the
same form whose lines win. A model that neither lists has no price, and what it costs is null.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError
from generators.llm.config import EMBEDDED, EndpointConfig

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        input: of the prompt.
        output: of the reply.
    """

    input: float
    output: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _MILLION


def price_of(config: EndpointConfig) -> Price | None:
    """Price of the model of `config`; None where no table lists it.

    A dated name (`gpt-4.1-mini-2025-04-14`) has the price of the name without its date, unless it
    has a line of its own. The embedded model costs nothing.

    Raises:
        ConfigError: the user's table cannot be read, or there is a budget and no price.
    """
    if config.model == EMBEDDED:
        return Price(input=0.0, output=0.0)
    packaged = files("generators.llm") / "prices.yaml"
    table = _table("prices.yaml", packaged.read_bytes())
    if config.prices is not None:
        own = Path(config.prices).expanduser()
        try:
            data = own.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"generate.endpoint.prices: cannot read {own} ({error.strerror}); expected a YAML "
                "file with lines such as `my-model: {input: 0.4, output: 1.6}`."
            ) from error
        table |= _table(str(own), data)
    price = table.get(config.model) or table.get(_DATE.sub("", config.model))
    if price is None and config.budget_usd is not None:
        raise ConfigError(
            f"generate.endpoint.budget_usd: no price is known for {config.model!r}, so a budget "
            f"cannot be kept. Write `{config.model}: {{input: …, output: …}}` (US dollars per "
            "million tokens) into a YAML file and name it at generate.endpoint.prices."
        )
    return price


def _table(where: str, data: bytes) -> dict[str, Price]:
    try:
        lines = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(lines, dict):
        raise ConfigError(f"{where}: expected a mapping of model names to prices.")
    return {str(name): _price(f"{where}: {name}", line) for name, line in lines.items()}


def _price(where: str, line: Any) -> Price:
    if not (
        isinstance(line, dict)
        and set(line) == {"input", "output"}
        # exact types: YAML's `true` is an int to Python
        and all(type(value) in (int, float) and value >= 0 for value in line.values())
    ):
        raise ConfigError(
            f"{where}: got {line!r}, expected {{input: DOLLARS, output: DOLLARS}} per million "
            "tokens."
        )
    return Price(input=float(line["input"]), output=float(line["output"]))
