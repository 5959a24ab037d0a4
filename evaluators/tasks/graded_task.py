"""Relations asked at several grades: a claim about a subject, its negation, a comparison, two hops.

| grade | claim about a subject that is read | what it takes |
|---|---|---|
| `direct` | the object itself | one fact |
| `negation` | not the object | one fact, and its negation |
| `comparison` | the same object as that of a named training subject | one fact read, one recalled |
| `two_hop` | the object of the object, by another relation | two facts, one after the other |

Each claim is answered with yes or no. Two subjects with different objects share two claims, one of
which is true of each: whoever does not look at the activations answers both alike and is right in
exactly one half, whatever the claims say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from core.canonical import digest
from evaluators.tasks.answers import fold, names_any
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.relations import Subject
from evaluators.tasks.rows import PlainPrompt, TaskData, TaskRow

OPTIONS = ("Yes", "No")
CHANCE = 1 / len(OPTIONS)
_ASKED = "Yes or no?"

MakeClaim = Callable[[TaskRow], str | None]
"""Returns what is claimed of a row's subject where it is to be true; None where nothing can be."""


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
                    yield _grade(
                        led, f"{data.name}_then_{hop.name}", lambda row: row.answer, config
                    )
        elif grade == "comparison":
            compare = _comparison(data.train)
            yield _grade(data, f"{data.name}_comparison", compare, config)
        else:
            negated = grade == "negation"
            yield _grade(
                data, f"{data.name}_{grade}", lambda row: row.answer, config, negated=negated
            )


def _grade(
    data: TaskData,
    name: str,
    claim: MakeClaim,
    config: TasksConfig,
    *,
    negated: bool = False,
) -> TaskData:
    validation = _claims(data.validation, claim, negated=negated)
    test = _claims(data.test, claim, negated=negated)
    subjects = len({row.group for row in test})
    counts = {"test_subjects": subjects, "claims": len(test)}
    why = None
    if subjects < config.min_subjects:
        why = (
            f"{subjects} subjects could be paired, expected at least {config.min_subjects} "
            "(tasks.min_subjects)"
        )
    elif not validation:
        why = "no two validation subjects could be paired"
    return TaskData(
        name=name,
        train=(),
        validation=validation if why is None else (),
        test=test if why is None else (),
        layers=data.layers,
        counts=counts,
        why_not=why,
        headline="chosen",
        chance=CHANCE,
    )


def _claims(rows: Sequence[TaskRow], claim: MakeClaim, *, negated: bool) -> tuple[TaskRow, ...]:
    """Pair rows, and make the four rows of each pair: two subjects, two claims."""
    out: list[TaskRow] = []
    for number, (first, second) in enumerate(_pairs(rows, claim)):
        for about in (first, second):
            claimed = claim(about)
            assert claimed is not None
            for row in (first, second):
                true = (row is about) != negated
                words = f"not {claimed}" if negated else claimed
                out.append(_ask(row, words, gold=0 if true else 1, choice=number))
    return tuple(out)


def _pairs(rows: Sequence[TaskRow], claim: MakeClaim) -> Iterator[tuple[TaskRow, TaskRow]]:
    """Pair each row with the next one of which its claim is false, and the other way round."""
    left = [row for row in rows if claim(row) is not None]
    while left:
        first = left.pop(0)
        for i, second in enumerate(left):
            if not names_any(first.answer, second.answers) and not names_any(
                second.answer, first.answers
            ):
                yield first, left.pop(i)
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


def _comparison(train: Sequence[TaskRow]) -> MakeClaim:
    """Claim the object of a training subject, by that subject's name."""
    by_answer: dict[tuple[str, ...], TaskRow] = {}
    for row in train:
        by_answer.setdefault(tuple(fold(row.answer)), row)

    def claim(row: TaskRow) -> str | None:
        other = by_answer.get(tuple(fold(row.answer)))
        return None if other is None else f"the same as for {other.name}"

    return claim


def _lead_on(rows: Sequence[TaskRow], hop: Hop) -> tuple[TaskRow, ...]:
    """Put the second relation before the first, where a row's object is one of its subjects."""
    out = []
    for row in rows:
        second = hop.subjects.get(tuple(fold(row.answer)))
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
