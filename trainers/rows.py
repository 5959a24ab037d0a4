"""The rows that a decoder is trained or judged on: conversations joined with their questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from decoder.prompt import DecoderPrompt, Turn
from decoder.reading import stored_reading, withheld_tokens
from generators.canonical import digest
from generators.errors import DataError
from generators.schema import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    Conversation,
    Question,
    read_conversations,
    read_questions,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation whose activations are stored, and at least one question about it."""

    conversation: Conversation
    questions: tuple[Question, ...]

    @property
    def example_id(self) -> str:
        """Id of the conversation."""
        return self.conversation.example_id


def load_rows(conversations: Path, questions: Path, store: ActivationStore) -> list[Row]:
    """Rows in the order of the conversations; those that the dump dropped, and those without
    questions, are left out (both are counted in their own steps).

    Raises:
        DataError: nothing is left.
    """
    asked: dict[str, list[Question]] = {}
    for question in read_questions(questions / QUESTIONS_FILE):
        asked.setdefault(question.example_id, []).append(question)
    rows = [
        Row(conversation, tuple(asked[conversation.example_id]))
        for conversation in read_conversations(conversations / CONVERSATIONS_FILE)
        if conversation.example_id in asked and conversation.example_id in store.index
    ]
    if not rows:
        raise DataError(
            f"no conversation of {conversations} has both questions in {questions} and "
            f"activations in {store.root}; do they belong together?"
        )
    return rows


def select(
    rows: Iterable[Row], *, split: str, views: Sequence[str], most: int | None, seed: int
) -> list[Row]:
    """Rows of one split, at most `most`, drawn by seed with the views by turns.

    A row's rank is a hash of seed and id, so that a smaller selection is part of a larger one.
    """
    by_view: dict[str, list[Row]] = {view: [] for view in views}
    for row in rows:
        if row.conversation.split == split and row.conversation.view in by_view:
            by_view[row.conversation.view].append(row)
    for own in by_view.values():
        own.sort(key=lambda row: digest([seed, row.example_id]))
    longest = max((len(own) for own in by_view.values()), default=0)
    turns = [own[i] for i in range(longest) for own in by_view.values() if i < len(own)]
    return turns if most is None else turns[:most]


def read_row(store: ActivationStore, row: Row, layer: int, *, masking: bool) -> Reading:
    """The row's own visible activations."""
    view = row.conversation.view
    return stored_reading(store, row.example_id, view, layer, masking=masking)


def row_turns(prompt: DecoderPrompt, row: Row) -> list[Turn]:
    """The row's questions and answers as tokens."""
    return [prompt.turn(q.question, q.answer) for q in row.questions]


def visible_tokens(store: ActivationStore, row: Row, *, masking: bool) -> int:
    """Number of activations of the row that the decoder sees."""
    placed = store.place(row.example_id)
    return placed.n_tokens - withheld_tokens(row.conversation.view, placed.withheld, masking=masking)
