"""Profiles are drawn from small worlds: things with facts, and the words for both.

A world is a category of `generators/seeds/profile.yaml`; here it is read and checked, so that no
template can fail later.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from string import Formatter
from typing import Any

from pydantic import Field, ValidationError, model_validator

from core.config import Config, first_problem
from core.errors import ConfigError
from generators.llm.prompt_files import PromptFiles

Phrases = tuple[str, ...]


class Fact(Config):
    """One attribute of a thing, with its questions and phrases."""

    asks: Phrases = Field(min_length=1)
    """Questions about `{who}`."""
    plural: str
    """What several things do that have it, such as `work as {value}`."""
    denied: str
    """The same of those that have it not."""


class ChoiceFact(Fact):
    """A fact whose value is one of a list."""

    says: Phrases = Field(min_length=1)
    """What is said of one thing, with `{value}`."""
    values: Phrases = Field(min_length=6)
    """What it can be."""

    @model_validator(mode="after")
    def _slots(self) -> ChoiceFact:
        _expect((*self.says, self.plural, self.denied), {"value"})
        _expect(self.asks, {"who"})
        return self


class BooleanFact(Fact):
    """A fact that holds or does not."""

    yes: Phrases = Field(min_length=1)
    """What is said where it holds."""
    no: Phrases = Field(min_length=1)
    """What is said where it does not."""

    @model_validator(mode="after")
    def _slots(self) -> BooleanFact:
        _expect((*self.yes, *self.no, self.plural, self.denied), set())
        _expect(self.asks, {"who"})
        return self


class NumberFact(Config):
    """A fact whose value is an integer, different for each thing of a sheet."""

    says: Phrases = Field(min_length=1)
    """What is said of one thing, with `{value}`."""
    asks: Phrases = Field(min_length=1)
    """Questions about `{who}`."""
    comparative: str
    """What is true of the greater of two."""
    superlative: str
    """What is true of the greatest."""
    lowest: str
    """What is true of the least."""
    above: str
    """What several things do whose number is above `{value}`."""
    low: int
    """Least number."""
    high: int
    """Greatest number."""

    @model_validator(mode="after")
    def _slots(self) -> NumberFact:
        _expect((*self.says, self.above), {"value"})
        _expect(self.asks, {"who"})
        _expect((self.comparative, self.superlative, self.lowest), set())
        if self.high - self.low < 9:
            raise ValueError(f"expected ten numbers or more, got {self.low} to {self.high}")
        return self


class LinkFact(Config):
    """A fact whose value is another thing of the sheet: the first hop of a two-hop question."""

    says: Phrases = Field(min_length=1)
    """What is said of one thing, with `{other}`."""
    the: Phrases = Field(min_length=1)
    """Descriptions of the other thing, by `{name}` of the first."""

    @model_validator(mode="after")
    def _slots(self) -> LinkFact:
        _expect(self.says, {"other"})
        _expect(self.the, {"name"})
        return self


class World(Config):
    """One category of profiles."""

    noun: str
    """What one thing is."""
    nouns: str
    """What several are."""
    which: str
    """What asks for one of them: `Who`, `Which ship`."""
    relative: str
    """`who` or `that`."""
    openings: Phrases = Field(min_length=1)
    """First sentences, with `{names}` and, if they like, `{count}`."""
    names: Phrases = Field(min_length=12)
    """Names of things."""
    values: dict[str, ChoiceFact] = Field(min_length=1)
    """Facts with values."""
    numbers: dict[str, NumberFact] = Field(min_length=1)
    """Facts that can be compared."""
    flags: dict[str, BooleanFact] = Field(min_length=1)
    """Facts that hold or do not."""
    relations: dict[str, LinkFact] = Field(min_length=1)
    """Facts that lead to another thing."""

    @cached_property
    def askable(self) -> dict[str, ChoiceFact | NumberFact | BooleanFact]:
        """Facts that can be asked for by themselves, by name."""
        return {**self.values, **self.numbers, **self.flags}

    @model_validator(mode="after")
    def _sound(self) -> World:
        for opening in self.openings:
            _expect([opening], {"names"} | ({"count"} & set(_slots_of(opening))))
        names = [*self.values, *self.numbers, *self.flags, *self.relations]
        if len(set(names)) < len(names):
            raise ValueError("expected another name for each fact")
        return self


def worlds(texts: PromptFiles) -> dict[str, World]:
    """Read the worlds of the seeds file `profile`, by category, in file order.

    Raises:
        ConfigError: the file is not one of worlds; the text names the field.
    """
    return texts.parsed_seeds("profile", _read)


def _read(where: str, content: Any) -> dict[str, World]:
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{where}: expected categories, each with a world of facts.")
    found: dict[str, World] = {}
    for category, fields in content.items():
        try:
            found[str(category)] = World.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(f"{where}: {first_problem(error, str(category))}.") from error
    return found


def _expect(templates: Iterable[str], slots: set[str]) -> None:
    for template in templates:
        if set(_slots_of(template)) != slots:
            wanted = ", ".join(f"{{{name}}}" for name in sorted(slots)) or "no slot"
            raise ValueError(f"{template!r}: expected {wanted} in it")


def _slots_of(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]
