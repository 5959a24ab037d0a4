"""Instructions that code can check: a persona of a closed list and one rule for every reply.

Small models obey some of them, and whether they do is checked by code, not by an LLM. Controls set
one attribute or a combination, so a held-out control is a new combination of known values: what
training needs to generalise over is small, and a linear probe shows that it can be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

from pydantic import Field, ValidationError, model_validator

from core.config import Config, first_problem
from core.errors import ConfigError
from core.records.tables import Conversation, Dropped, QuestionType
from generators.kinds.base import DrawnControl, DrawnKind, QuestionAnswer
from generators.kinds.sources import ResolvedTexts
from generators.llm.prompt_files import PromptFiles

SEEDS = "instruction"
_CHECKS = ("words", "without", "length", "language", "form", "sentiment", "register")
Check = dict[str, Any]
"""What a reply that obeys has (generators/rules/obedience.py)."""


class Value(Config):
    """One value of an attribute, and how obedience to it is checked."""

    value: str
    """How texts name it."""
    words: tuple[str, ...] = ()
    """Words of which a reply that obeys has at least one."""
    without: tuple[str, ...] = ()
    """Words of which a reply that obeys has none."""
    length: tuple[int, int] | None = None
    """Least and most words of a reply that obeys."""
    language: str | None = None
    """Code of the language that a reply that obeys is in."""
    form: str | None = None
    """Form of a reply that obeys (generators/rules/obedience.py)."""
    sentiment: str | None = None
    """Sentiment of a reply that obeys: positive or negative (generators/rules/tone.py)."""
    register_: str | None = Field(default=None, alias="register")
    """Register of a reply that obeys: formal or informal (generators/rules/tone.py)."""

    @model_validator(mode="after")
    def _one_check(self) -> Value:
        if len(self.check) != 1:
            raise ValueError(f"{self.value}: expected exactly one of {', '.join(_CHECKS)}")
        return self

    @property
    def check(self) -> Check:
        """The check alone, as plain JSON values."""
        named = self.model_dump(mode="json", by_alias=True)
        return {name: named[name] for name in _CHECKS if named[name]}


class Attribute(Config):
    """Something that a control sets: its values, and the words for them (`{value}`)."""

    control: str
    """How a control sets it."""
    question: str
    """Asks for the value."""
    answer: str
    """Names the value."""
    yes_no: str
    """Asks whether it is a certain value."""
    values: tuple[Value, ...] = Field(min_length=2)
    """All values."""

    def named(self, value: str) -> Value:
        """Find the value that texts name `value`."""
        return next(own for own in self.values if own.value == value)


class InstructionSeeds(Config):
    """The file of attributes."""

    attributes: dict[str, Attribute]
    """Attributes by name."""
    orders: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """Attributes that a control sets together, in the order of its sentences."""
    later_orders: tuple[tuple[str, ...], ...] = ()
    """Further ones, drawn once every combination of `orders` was: adding some changes no row of a
    plan that does without them."""

    @model_validator(mode="after")
    def _known(self) -> InstructionSeeds:
        for name in itertools.chain.from_iterable(self.all_orders):
            if name not in self.attributes:
                raise ValueError(f"orders: unknown attribute {name!r}")
        return self

    @property
    def all_orders(self) -> tuple[tuple[str, ...], ...]:
        """Orders and later ones."""
        return (*self.orders, *self.later_orders)


class Instruction(DrawnKind):
    """Checkable instructions, alone or combined; the category names the attributes that are set."""

    name = "instruction"
    views = ("control", "stimulus", "system")
    types = ("description", "yes_no")
    control_texts = (SEEDS, "messages")
    question_texts = (SEEDS,)
    acknowledgements = ("Understood.",)

    def categories(self, texts: PromptFiles) -> Mapping[str, tuple[str, ...]]:
        """Map each category to the attributes that its controls set."""
        return {"+".join(order): order for order in instruction_seeds(texts).all_orders}

    def controls(
        self, seed: int, texts: PromptFiles, source: ResolvedTexts | None
    ) -> Iterator[DrawnControl | Dropped]:
        """Draw combinations, the categories by turns, until every combination was drawn."""
        seeds, messages = instruction_seeds(texts), texts.seed_list("messages")
        rounds = (seeds.orders, seeds.later_orders)
        drawn = itertools.chain(*(_by_turns(seeds, own, seed) for own in rounds))
        for number, (category, chosen) in enumerate(drawn):
            draw = Random(f"{seed} instruction {number}")
            text = " ".join(
                seeds.attributes[name].control.format(value=value) for name, value in chosen.items()
            )
            checks = {n: seeds.attributes[n].named(v).check for n, v in chosen.items()}
            yield DrawnControl(
                category=category,
                label="-".join(["instruction", *chosen.values()]).replace(" ", "_"),
                text=text,
                facts={"values": chosen, "checks": checks},
                stimuli=tuple(draw.sample(messages, len(messages))),
            )

    def questions(
        self, kind_of_question: QuestionType, row: Conversation, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionAnswer]:
        """Ask for each attribute's value, or whether it is a certain one (half of them: yes)."""
        attributes = instruction_seeds(texts).attributes
        values: dict[str, str] = row.provenance["facts"]["values"]
        order = list(values)
        draw.shuffle(order)
        if kind_of_question == "description":
            for name in order:
                own = attributes[name]
                yield QuestionAnswer(
                    question=own.question, answer=own.answer.format(value=values[name])
                )
            return
        flip = draw.randrange(2)
        for turn in range(2 * len(order)):
            name, round_ = order[turn % len(order)], turn // len(order)
            # yes and no by turns, and the other way round when an attribute comes again
            true = (turn + flip + (round_ if len(order) % 2 == 0 else 0)) % 2 == 0
            others = [v.value for v in attributes[name].values if v.value != values[name]]
            asked = values[name] if true else draw.choice(others)
            yield QuestionAnswer(
                question=attributes[name].yes_no.format(value=asked),
                answer="Yes." if true else "No.",
            )


def instruction_seeds(texts: PromptFiles) -> InstructionSeeds:
    """Read the attributes from the seeds.

    Raises:
        ConfigError: the file is not of the expected form.
    """
    return texts.parsed_seeds(SEEDS, _read)


def _read(where: str, content: Any) -> InstructionSeeds:
    try:
        return InstructionSeeds.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_problem(error)}.") from error


def _by_turns(
    seeds: InstructionSeeds, orders: Iterable[tuple[str, ...]], seed: int
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the combinations of each order with their category, the categories by turns."""
    left = {
        (category := "+".join(order)): _combinations(
            seeds, order, Random(f"{seed} instruction {category}")
        )
        for order in orders
    }
    while any(left.values()):
        for category, combinations in left.items():
            if combinations:
                yield category, combinations.pop()


def _combinations(
    seeds: InstructionSeeds, order: tuple[str, ...], draw: Random
) -> list[dict[str, str]]:
    """All combinations of the values of some attributes, in a drawn order."""
    values = [[own.value for own in seeds.attributes[name].values] for name in order]
    found = [
        dict(zip(order, combination, strict=True)) for combination in itertools.product(*values)
    ]
    draw.shuffle(found)
    return found
