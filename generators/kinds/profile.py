"""Kind `profile`: sheets of drawn facts about a few things, with exact answers at five grades.

No LLM is needed, and the supply is endless. A sheet names all of its things first, so that counts
and negations are well defined; each fact occurs once, in one of several wordings and layouts. The
facts are kept in the row's provenance, and answers are computed from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from core.records.tables import Conversation, Dropped, QuestionType
from generators.kinds.base import DrawnControl, DrawnKind, QuestionAnswer
from generators.kinds.sources import ResolvedTexts
from generators.kinds.worlds import ChoiceFact, LinkFact, World, worlds
from generators.llm.prompt_files import PromptFiles

_COUNTS = ("none", "one", "two", "three", "four", "five")
_LEAST, _MOST = 3, 5  # things of a sheet

Facts = dict[str, list[Any]]
"""Each fact's values, one a thing: text, number, bool, or the place of another thing."""
Possible = list[tuple[Callable[..., QuestionAnswer], tuple[Any, ...]]]
"""What can be asked: what words it, and with which arguments."""


_RIGHT = ("Is it true that", "Would it be right to say that")
_WRONG = ("Is it false that", "Would it be wrong to say that")


class Profile(DrawnKind):
    """A few people or things of one world; the grade of a question is its type."""

    name = "profile"
    views = ("control", "stimulus", "system")
    types = ("single_fact", "two_hop", "comparison", "counting", "negation")
    question_version = 2
    control_texts = ("profile", "messages")
    question_texts = ("profile",)
    acknowledgements = (
        "Thank you, I have read this.",
        "Understood. I will keep these facts in mind.",
        "All right, I know this now.",
    )

    def categories(self, texts: PromptFiles) -> Mapping[str, World]:
        """Return the worlds."""
        return worlds(texts)

    def controls(
        self, seed: int, texts: PromptFiles, source: ResolvedTexts | None
    ) -> Iterator[DrawnControl | Dropped]:
        """Yield sheets without end; each block of them has every world once, in a drawn order."""
        known, messages = worlds(texts), texts.seed_list("messages")
        draw = Random()
        for block in itertools.count():
            order = list(known)
            Random(f"{seed} profile worlds {block}").shuffle(order)
            for place, category in enumerate(order):
                number = block * len(order) + place
                draw.seed(f"{seed} profile {number}")
                things, facts = _facts(known[category], draw)
                yield DrawnControl(
                    category=category,
                    label=f"profile-{category}-{seed}-{number}",
                    text=_sheet(known[category], things, facts, draw),
                    facts={"world": category, "things": things, "facts": facts},
                    stimuli=_stimuli(messages, draw),
                )

    def questions(
        self, kind_of_question: QuestionType, row: Conversation, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionAnswer]:
        """Yield all questions of a grade, in a drawn order."""
        facts = row.provenance["facts"]
        sheet = _Sheet(worlds(texts)[facts["world"]], facts["things"], facts["facts"], draw)
        possible: Possible = getattr(sheet, kind_of_question)()
        while possible:
            # few are taken of many: cheaper than to shuffle them all
            chosen = draw.randrange(len(possible))
            possible[chosen], possible[-1] = possible[-1], possible[chosen]
            make, what = possible.pop()
            yield make(*what)


def _stimuli(messages: Sequence[str], draw: Random) -> tuple[str, ...]:
    """Draw one message, and after it all others in a drawn order."""
    first = draw.choice(messages)
    return (first, *draw.sample([m for m in messages if m != first], len(messages) - 1))


def _facts(world: World, draw: Random) -> tuple[list[str], Facts]:
    """Draw things and their facts; at times one of the facts with values is left out."""
    count = draw.randint(_LEAST, _MOST)
    facts: Facts = {}
    left_out = draw.choice([None, *world.values]) if len(world.values) > 1 else None
    for name, values in world.values.items():
        if name != left_out:
            # fewer values than things, as a rule, so that there is something to count
            some = draw.sample(values.values, draw.randint(2, count))
            facts[name] = [draw.choice(some) for _ in range(count)]
    for name, number in world.numbers.items():
        facts[name] = draw.sample(range(number.low, number.high + 1), count)
    for name in world.flags:
        facts[name] = [draw.random() < 0.5 for _ in range(count)]
    for name in world.relations:
        steps = [draw.randrange(1, count) for _ in range(count)]
        facts[name] = [(i + step) % count for i, step in enumerate(steps)]
    return draw.sample(world.names, count), facts


def _sheet(world: World, things: Sequence[str], facts: Facts, draw: Random) -> str:
    """Write the control: an opening with all names, then every fact once."""
    opening = draw.choice(world.openings).format(names=_listed(things), count=_COUNTS[len(things)])
    clauses = [
        (i, _phrase(world, name, i, things, facts, draw.choice))
        for name in facts
        for i in range(len(things))
    ]
    layout = draw.choice(("by fact", "by thing", "list", "mixed"))
    if layout == "mixed":
        draw.shuffle(clauses)
    if layout in ("by fact", "mixed"):
        return " ".join([opening, *(f"{things[i]} {phrase}." for i, phrase in clauses)])
    order = list(range(len(things)))
    draw.shuffle(order)
    of_thing = {i: [phrase for j, phrase in clauses if j == i] for i in order}
    for own in of_thing.values():
        draw.shuffle(own)
    if layout == "list":
        return "\n".join([opening, *(f"- {things[i]} {'; '.join(of_thing[i])}." for i in order)])
    sentences = [_sentences(things[i], of_thing[i], draw) for i in order]
    return draw.choice(("\n\n", " ")).join([opening, *sentences])


def _sentences(name: str, phrases: Sequence[str], draw: Random) -> str:
    """Write the phrases about one thing as sentences, now and then two phrases in one."""
    out, rest = [], list(phrases)
    while rest:
        two = len(rest) > 1 and draw.random() < 0.5
        taken, rest = rest[: 1 + two], rest[1 + two :]
        out.append(f"{name} {' and '.join(taken)}.")
    return " ".join(out)


def _phrase(
    world: World,
    name: str,
    i: int,
    things: Sequence[str],
    facts: Facts,
    pick: Callable[[Sequence[str]], str],
) -> str:
    """Word the fact `name` of thing `i`, in the wording that `pick` chooses."""
    value = facts[name][i]
    if name in world.values:
        return pick(world.values[name].says).format(value=value)
    if name in world.numbers:
        return pick(world.numbers[name].says).format(value=value)
    if name in world.flags:
        return pick(world.flags[name].yes if value else world.flags[name].no)
    return pick(world.relations[name].says).format(other=things[value])


def _first(phrases: Sequence[str]) -> str:
    return phrases[0]


class _Sheet:
    """The questions about one sheet.

    Each grade lists what can be asked as (method, arguments), so that only what is taken is worded.
    """

    def __init__(self, world: World, things: list[str], facts: Facts, draw: Random) -> None:
        self._world, self._things, self._facts, self._draw = world, things, facts, draw
        self._all = range(len(things))

    def single_fact(self) -> Possible:
        """List questions for one fact of one thing."""
        askable, relations = self._askable(), list(self._world.relations)
        fact_of, other_of = self._fact_of, self._other_of
        found: Possible = []
        for i, thing in enumerate(self._things):
            found += [(fact_of, (thing, i, name)) for name in askable]
            found += [(other_of, (i, name)) for name in relations]
        return found

    def two_hop(self) -> Possible:
        """List questions for a fact of a thing that another fact leads to."""
        askable, of_other, of_described = (
            self._askable(),
            self._fact_of_other,
            self._fact_of_described,
        )
        found: Possible = [
            (of_other, (i, name, asked))
            for name in self._world.relations
            for i in self._all
            for asked in askable
        ]
        for name, _ in self._values():
            values = self._facts[name]
            found += [
                (of_described, (i, name, asked))
                for i in self._all
                if values.count(values[i]) == 1
                for asked in askable
                if asked != name
            ]
        return found

    def comparison(self) -> Possible:
        """List questions for the greater of two, the greatest and the least."""
        greater = self._greater
        found: Possible = []
        for name, fact in self._world.numbers.items():
            numbers = self._facts[name]
            found += [(greater, (name, *pair)) for pair in itertools.permutations(self._all, 2)]
            found.append((self._extreme, (fact.superlative, max(numbers), name)))
            found.append((self._extreme, (fact.lowest, min(numbers), name)))
        return found

    def counting(self) -> Possible:
        """List questions for how many have a value or a flag, or are above a number."""
        found: Possible = []
        for name, values in self._values():
            there = [*dict.fromkeys(self._facts[name]), self._absent(name, values)]
            found += [(self._count_value, (name, value)) for value in there]
        found += [(self._count_flag, (name,)) for name in self._world.flags]
        for name in self._world.numbers:
            numbers = sorted(self._facts[name])[1:]
            found += [(self._count_above, (name, number - 1)) for number in numbers]
        return found

    def negation(self) -> Possible:
        """List questions for which have something not, and whether a claim is right or wrong."""
        found: Possible = []
        for name, flag in self._world.flags.items():
            if 0 < sum(self._facts[name]) < len(self._things):
                without = [not held for held in self._facts[name]]
                found.append((self._without, (flag.denied, without)))
        for name, values in self._values():
            there = self._facts[name]
            for value in dict.fromkeys(there):
                if there.count(value) < len(there):
                    denied = values.denied.format(value=value)
                    found.append((self._without, (denied, [other != value for other in there])))
            found += [(self._judged, (name, i)) for i in self._all]
        return found

    def _askable(self) -> list[str]:
        return [name for name in self._world.askable if name in self._facts]

    def _values(self) -> list[tuple[str, ChoiceFact]]:
        return [item for item in self._world.values.items() if item[0] in self._facts]

    def _says(self, name: str, i: int) -> str:
        phrase = _phrase(self._world, name, i, self._things, self._facts, _first)
        return f"{self._things[i]} {phrase}."

    def _fact_of(self, who: str, i: int, name: str) -> QuestionAnswer:
        question = self._draw.choice(self._world.askable[name].asks).format(who=who)
        said = self._says(name, i)
        if name in self._world.flags:
            said = f"{'Yes' if self._facts[name][i] else 'No'}, {said}"
        return QuestionAnswer(question=question, answer=said)

    def _the(self, i: int, name: str) -> str:
        relation: LinkFact = self._world.relations[name]
        return self._draw.choice(relation.the).format(name=self._things[i])

    def _other_of(self, i: int, name: str) -> QuestionAnswer:
        the = self._the(i, name)
        question = self._draw.choice((f"What is the name of {the}?", f"Name {the}."))
        return QuestionAnswer(question=question, answer=self._says(name, i))

    def _fact_of_other(self, i: int, name: str, asked: str) -> QuestionAnswer:
        return self._fact_of(self._the(i, name), self._facts[name][i], asked)

    def _fact_of_described(self, i: int, name: str, asked: str) -> QuestionAnswer:
        phrase = _phrase(self._world, name, i, self._things, self._facts, self._draw.choice)
        who = f"the {self._world.noun} {self._world.relative} {phrase}"
        return self._fact_of(who, i, asked)

    def _greater(self, name: str, i: int, j: int) -> QuestionAnswer:
        comparative = self._world.numbers[name].comparative
        a, b = self._things[i], self._things[j]
        question = self._draw.choice(
            (
                f"{self._world.which} {comparative}, {a} or {b}?",
                f"Of the two {self._world.nouns} {a} and {b}, which one {comparative}?",
            )
        )
        greater = a if self._facts[name][i] > self._facts[name][j] else b
        return QuestionAnswer(question=question, answer=f"{greater} {comparative}.")

    def _extreme(self, said: str, number: int, name: str) -> QuestionAnswer:
        thing = self._things[self._facts[name].index(number)]
        question = self._draw.choice(
            (
                f"Which of the {self._world.nouns} {said}?",
                f"Among all the {self._world.nouns}, which one {said}?",
            )
        )
        return QuestionAnswer(question=question, answer=f"{thing} {said}.")

    def _absent(self, name: str, values: ChoiceFact) -> str:
        return self._draw.choice([v for v in values.values if v not in self._facts[name]])

    def _count_value(self, name: str, value: str) -> QuestionAnswer:
        return self._count(
            self._world.values[name].plural.format(value=value), self._facts[name].count(value)
        )

    def _count_flag(self, name: str) -> QuestionAnswer:
        return self._count(self._world.flags[name].plural, sum(self._facts[name]))

    def _count_above(self, name: str, number: int) -> QuestionAnswer:
        return self._count(
            self._world.numbers[name].above.format(value=number),
            sum(found > number for found in self._facts[name]),
        )

    def _count(self, said: str, found: int) -> QuestionAnswer:
        question = self._draw.choice(
            (
                f"How many of the {self._world.nouns} {said}?",
                f"What is the number of {self._world.nouns} that {said}?",
            )
        )
        every = _COUNTS[len(self._things)]
        some = f"{_COUNTS[found]} of the {every}"
        answer = f"all {every}" if found == len(self._things) else some
        return QuestionAnswer(question=question, answer=f"{answer.capitalize()}.")

    def _without(self, denied: str, those: Sequence[bool]) -> QuestionAnswer:
        question = self._draw.choice(
            (
                f"Which of the {self._world.nouns} {denied}?",
                f"Name all of the {self._world.nouns} that {denied}.",
            )
        )
        names = [thing for thing, one in zip(self._things, those, strict=True) if one]
        answer = f"{_listed(names)} {denied}." if len(names) > 1 else f"Only {names[0]}."
        return QuestionAnswer(question=question, answer=answer)

    def _judged(self, name: str, i: int) -> QuestionAnswer:
        """Ask whether a claim is right, or wrong: the answer is yes in half, whatever is asked."""
        values: ChoiceFact = self._world.values[name]
        holds, affirmed = (self._draw.random() < 0.5 for _ in range(2))
        wrong = self._draw.choice([v for v in values.values if v != self._facts[name][i]])
        value = self._facts[name][i] if holds else wrong
        said = f"{self._things[i]} {values.says[0].format(value=value)}"
        verdict = self._draw.choice(_RIGHT if affirmed else _WRONG)
        answer = "Yes" if holds == affirmed else "No"
        return QuestionAnswer(
            question=f"{verdict} {said}?", answer=f"{answer}, {self._says(name, i)}"
        )


def _listed(names: Sequence[str]) -> str:
    """Join names as `A, B and C`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
