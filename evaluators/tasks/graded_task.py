"""Relations asked at several grades: a claim about a subject, its negation, a comparison, two hops.

| grade | claim about a subject that is read | what it takes |
|---|---|---|
| `direct` | the object itself | one fact |
| `negation` | not the object | one fact, and its negation |
| `comparison` | the same object as that of a named training subject | one fact read, one recalled |
| `counting` | the same object as two, or one, of three named training subjects | three recalled |
| `two_hop` | the object of the object, by another relation | two facts, one after the other |

Each claim is answered with yes or no. Two subjects with different objects share two claims, one of
which is true of each: a method that ignores the activations answers both alike and is right in
exactly one half, whatever the claims say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from core.documents.canonical import digest
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.rows import PlainPrompt, TaskData, TaskRow
from generators.kinds.relation_files import Subject
from generators.rules.naming import fold, names_any

OPTIONS = ("Yes", "No")
CHANCE = 1 / len(OPTIONS)
_ASKED = "Yes or no?"

Claims = tuple[str, str]
MakeClaims = Callable[[TaskRow, TaskRow], Claims | None]
"""Returns what is true of the first row's subject alone of the two, and what of the second's; None
where nothing can be claimed of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """A second relation, by which an object leads on.

    Attributes:
        name: of the relation.
        subjects: by the words of their names; those whose object the target knows.
    """

    name: str
    subjects: Mapping[tuple[str, ...], Subject]


def grade_tasks(data: TaskData, hops: Sequence[Hop], config: TasksConfig) -> Iterator[TaskData]:
    """Build the graded tasks of a relation from its rows.

    Args:
        data: a measured task of a relation.
        hops: other relations, for `two_hop`.
        config: the grades, and how few subjects are not measured.
    """
    for grade in config.grades:
        if grade == "two_hop":
            for hop in hops:
                led = replace(
                    data,
                    validation=_lead_on(data.validation, hop),
                    test=_lead_on(data.test, hop),
                )
                if led.test:
                    yield _grade(led, f"{data.name}_then_{hop.name}", _own_answers, config)
        else:
            make = _CLAIMS[grade](data.train)
            negated = grade == "negation"
            yield _grade(data, f"{data.name}_{grade}", make, config, negated=negated)


def _grade(
    data: TaskData,
    name: str,
    make: MakeClaims,
    config: TasksConfig,
    *,
    negated: bool = False,
) -> TaskData:
    validation = _claim_rows(data.validation, make, negated=negated)
    test = _claim_rows(data.test, make, negated=negated)
    subjects = len({row.group for row in test})
    counts = {"test_subjects": subjects, "claims": len(test)}
    why = None
    if subjects < config.min_subjects:
        why = (
            f"a claim can be made about {subjects} test subjects, and tasks.min_subjects requires "
            f"{config.min_subjects}"
        )
    elif not validation:
        why = "a claim can be made about no validation subject"
    return TaskData(
        name=name,
        validation=validation,
        test=test,
        layers=data.layers,
        counts=counts,
        headline="chosen",
        chance=CHANCE,
    ).unless(why)


def _claim_rows(rows: Sequence[TaskRow], make: MakeClaims, *, negated: bool) -> tuple[TaskRow, ...]:
    """Pair rows, and make the four rows of each pair: two subjects, two claims."""
    out: list[TaskRow] = []
    for number, (pair, claims) in enumerate(_pairs(rows, make)):
        for about, claimed in zip(pair, claims, strict=True):
            for row in pair:
                true = (row is about) != negated
                words = f"not {claimed}" if negated else claimed
                out.append(_ask(row, words, gold=0 if true else 1, choice=number))
    return tuple(out)


def _pairs(
    rows: Sequence[TaskRow], make: MakeClaims
) -> Iterator[tuple[tuple[TaskRow, TaskRow], Claims]]:
    """Pair each row with the next one that has another object, and of which can be claimed."""
    left = list(rows)
    while left:
        first = left.pop(0)
        for i, second in enumerate(left):
            if names_any(first.answer, second.answers) or names_any(second.answer, first.answers):
                continue
            claims = make(first, second)
            if claims is not None:
                left.pop(i)
                yield (first, second), claims
                break


def _ask(row: TaskRow, claimed: str, *, gold: int, choice: int) -> TaskRow:
    stem, patched, named = row.questions[0], row.patched[0], row.plain[-1].prefill
    return replace(
        row,
        row_id=digest([row.row_id, claimed])[:16],
        answers=(OPTIONS[gold],),
        questions=(
            f"{stem} it is {claimed}. {_ASKED}",
            f"Is it true? {stem} it is {claimed}.",
        ),
        patched=(
            f"{patched} {claimed}. {_ASKED} Answer:",
            f"Is it true that {patched[0].lower()}{patched[1:]} {claimed}? {_ASKED} Answer:",
        ),
        plain=(
            PlainPrompt(messages=(("user", f"{named} {claimed}. {_ASKED}"),)),
            PlainPrompt(messages=(("user", f"Is this true? {named} {claimed}."),)),
        ),
        options=OPTIONS,
        gold=gold,
        choice=choice,
    )


def _own_answers(first: TaskRow, second: TaskRow) -> Claims:
    return first.answer, second.answer


def _comparison(train: Sequence[TaskRow]) -> MakeClaims:
    """Claim the object of a training subject, by that subject's name."""
    named = _names_by_object(train)

    def make(first: TaskRow, second: TaskRow) -> Claims | None:
        names = [named.get(_object(row), [])[:1] for row in (first, second)]
        if not all(names):
            return None
        one, other = (f"the same as for {name}" for (name,) in names)
        return one, other

    return make


def _counting(train: Sequence[TaskRow]) -> MakeClaims:
    """Claim how many of three training subjects have the same object: two of one, one of the other.

    Of a pair the row that comes first by its id has the two, so that which number is true of whom
    says nothing.
    """
    named = _names_by_object(train)

    def make(first: TaskRow, second: TaskRow) -> Claims | None:
        swapped = first.row_id > second.row_id
        more, fewer = (second, first) if swapped else (first, second)
        names = [*named.get(_object(more), [])[:2], *named.get(_object(fewer), [])[:1]]
        if len(names) < 3:
            return None
        # in an order that does not tell whose are the two
        listed = ", ".join(sorted(names))
        two, one = (f"the same as for exactly {n} of these three: {listed}" for n in ("two", "one"))
        return (one, two) if swapped else (two, one)

    return make


_CLAIMS: Mapping[str, Callable[[Sequence[TaskRow]], MakeClaims]] = {
    "direct": lambda train: _own_answers,
    "negation": lambda train: _own_answers,
    "comparison": _comparison,
    "counting": _counting,
}


def _names_by_object(train: Sequence[TaskRow]) -> Mapping[tuple[str, ...], list[str]]:
    """List the names of training subjects by the words of their object."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for row in train:
        found.setdefault(_object(row), {})[row.name] = None
    return {words: list(names) for words, names in found.items()}


def _object(row: TaskRow) -> tuple[str, ...]:
    return tuple(fold(row.answer))


def _lead_on(rows: Sequence[TaskRow], hop: Hop) -> tuple[TaskRow, ...]:
    """Put the second relation before the first, where a row's object is one of its subjects."""
    out = []
    for row in rows:
        second = hop.subjects.get(_object(row))
        # a relation that is written as a question cannot stand within another
        if second is not None and row.patched[0].endswith(" is"):
            out.append(_led(row, second))
    return tuple(out)


def _led(row: TaskRow, second: Subject) -> TaskRow:
    def around(text: str) -> str:
        return second.fill(f"{text[0].lower()}{text[1:]}")

    def verb(text: str) -> str:
        return f"{around(text.removesuffix(' is'))} is"

    return replace(
        row,
        answers=second.objects,
        questions=tuple(around(text) for text in row.questions[:1]),
        patched=(verb(row.patched[0]),),
        plain=(PlainPrompt(messages=row.plain[-1].messages, prefill=verb(row.plain[-1].prefill)),),
    )
