"""Items of identification: a question, its gold answer, and answers of other controls beside it.

A distractor is the answer that another control has to the *same* question. A question that too few
controls were asked makes no item, and is counted: answers to other questions would show by their
form alone which one is gold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.documents.canonical import digest
from core.records.tables import Question
from evaluators.answers.metrics.words import comparable_form
from trainers.data.rows import Row


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """One multiple-choice item: a question and its options, gold first.

    Attributes:
        row: index of the evaluated row.
        question: what is asked.
        options: answers to choose from, gold first.
    """

    row: int
    question: Question
    options: tuple[str, ...]


def make_items(
    rows: Sequence[Row], pool: Sequence[Row], *, options: int, seed: int
) -> tuple[list[ChoiceItem], int]:
    """Make the items of `rows`; those of a row are the same whatever rows are evaluated with it.

    Args:
        rows: evaluated rows.
        pool: all rows of their split and view, from which distractors are drawn.
        options: answers of an item, gold counted.
        seed: of the draw of distractors.

    Returns:
        The items, and how many questions have too few distractors.
    """
    same_question: dict[str, list[tuple[Row, str]]] = defaultdict(list)
    for row in pool:
        for question in row.questions:
            same_question[comparable_form(question.question)].append((row, question.answer))
    items: list[ChoiceItem] = []
    left_out = 0
    for index, row in enumerate(rows):
        for question in row.questions:
            found = _distractors(
                row, question, same_question[comparable_form(question.question)], seed
            )
            if len(found) >= options - 1:
                chosen = (question.answer, *found[: options - 1])
                items.append(ChoiceItem(index, question, chosen))
            else:
                left_out += 1
    return items, left_out


def _distractors(
    row: Row, question: Question, answers: Iterable[tuple[Row, str]], seed: int
) -> list[str]:
    """Find answers of other controls that differ from gold, in an order drawn by seed."""
    own = row.conversation
    apart: dict[str, str] = {}
    for other, answer in answers:
        theirs = other.conversation
        if theirs.group_id != own.group_id and theirs.control_id != own.control_id:
            apart.setdefault(comparable_form(answer), answer)
    apart.pop(comparable_form(question.answer), None)
    return sorted(
        apart.values(), key=lambda text: digest([seed, row.example_id, question.question, text])
    )
