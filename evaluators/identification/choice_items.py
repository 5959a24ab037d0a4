"""Items of identification: a question, its gold answer, and answers of other controls beside it.

A distractor is the answer that another control has to the *same* question. Where no other control
was asked it, a description takes the descriptions of controls of the same kind and category; where
the source does not type its questions, those in the same place among their control's. A prediction
without its own question elsewhere makes no item: answers to other questions would show by their
form alone which one is gold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.canonical import digest
from core.tables import Question
from evaluators.answers.metrics.words import words
from trainers.rows import Row

Source = Literal["same_question", "same_category"]


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """One choice.

    Attributes:
        row: index of the judged row.
        question: what is asked.
        options: answers to choose from, gold first.
        source: where the distractors come from.
    """

    row: int
    question: Question
    options: tuple[str, ...]
    source: Source


def make_items(
    rows: Sequence[Row], pool: Sequence[Row], *, options: int, seed: int
) -> tuple[list[ChoiceItem], int]:
    """Items of `rows`, in order; the same for a row whatever rows are judged beside it.

    Args:
        pool: all rows of their split and view, from which distractors are drawn.
        options: most answers of an item, gold counted.

    Returns:
        The items, and how many questions have no distractor.
    """
    same_question: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    same_category: dict[tuple[str, ...], list[tuple[Row, str]]] = defaultdict(list)
    for row in pool:
        for place, question in enumerate(row.questions):
            same_question[_plain(question.question)].append((row, question.answer))
            if (key := _category(row, question, place)) is not None:
                same_category[key].append((row, question.answer))
    items: list[ChoiceItem] = []
    without = 0
    for index, row in enumerate(rows):
        for place, question in enumerate(row.questions):
            source: Source = "same_question"
            found = _distractors(row, question, same_question[_plain(question.question)], seed)
            key = _category(row, question, place)
            if not found and key is not None:
                source = "same_category"
                found = _distractors(row, question, same_category[key], seed)
            if found:
                chosen = (question.answer, *found[: options - 1])
                items.append(ChoiceItem(index, question, chosen, source))
            else:
                without += 1
    return items, without


def _category(row: Row, question: Question, place: int) -> tuple[str, ...] | None:
    """What descriptions share that may stand beside each other; None for other questions."""
    own = row.conversation
    if question.type == "description":
        return own.kind, own.category, "description"
    return (own.kind, own.category, str(place)) if question.type is None else None


def _distractors(
    row: Row, question: Question, answers: Iterable[tuple[Row, str]], seed: int
) -> list[str]:
    """Answers of other controls that say something else than gold, in an order drawn by seed."""
    own = row.conversation
    apart: dict[str, str] = {}
    for other, answer in answers:
        theirs = other.conversation
        if theirs.group_id != own.group_id and theirs.control_id != own.control_id:
            apart.setdefault(_plain(answer), answer)
    apart.pop(_plain(question.answer), None)
    return sorted(
        apart.values(), key=lambda text: digest([seed, row.example_id, question.question, text])
    )


def _plain(text: str) -> str:
    return " ".join(words(text))
