"""The rows that a decoder is trained or judged on: conversations joined with their questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from activation_store.target.replies import COMPLETES
from core.canonical import digest
from core.errors import DataError
from core.table_files import CONVERSATIONS_FILE, QUESTIONS_FILE, read_conversations, read_questions
from core.tables import KIND_NAMES, SOURCES, Conversation, Dropped, Question, View
from decoder.batch import Reading
from decoder.prompt import DecoderPrompt, Turn
from decoder.visible_tokens import Activations, ReadLayers, stored_reading, withheld_tokens


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation whose activations are stored, and at least one question about it."""

    conversation: Conversation
    questions: tuple[Question, ...]

    @property
    def example_id(self) -> str:
        """Id of the conversation."""
        return self.conversation.example_id


def load_rows(conversations: Path, questions: Path, store: Activations) -> list[Row]:
    """Rows in the order of the conversations; those that have no activations, and those without
    questions, are left out (both are counted in their own steps).

    Raises:
        DataError: nothing is left.
    """
    asked: dict[str, list[Question]] = {}
    for question in read_questions(questions / QUESTIONS_FILE):
        asked.setdefault(question.example_id, []).append(question)
    rows = []
    for conversation in read_conversations(conversations / CONVERSATIONS_FILE):
        # a completed row is asked what the row is asked that it completes
        source = conversation.provenance.get(COMPLETES, conversation.example_id)
        own = asked.get(conversation.example_id) or asked.get(source)
        if own and conversation.example_id in store:
            rows.append(Row(conversation, tuple(own)))
    if not rows:
        raise DataError(
            f"no conversation of {conversations} has both questions in {questions} and "
            "activations; do they belong together?"
        )
    return rows


def select(
    rows: Sequence[Row],
    *,
    split: str,
    views: Sequence[View],
    most: int | None,
    seed: int,
    mixture: Mapping[str, float] | None = None,
) -> list[Row]:
    """Rows of one split, at most `most`: sources, kinds and views by turns, as often as weighed.

    Sources are mixed where `mixture` names one, likewise kinds within each source; views, always,
    within each kind. A row's rank among its like is a hash of seed and id, so that a smaller
    selection is part of a larger one, and the same wherever it is made.

    Args:
        mixture: weight by name of a source, kind or view; 1 where a name is missing, and at 0 none
            of its rows.
    """
    weights = mixture or {}
    own = [r for r in rows if r.conversation.split == split and r.conversation.view in views]
    own.sort(key=lambda row: digest([seed, row.example_id]))

    def by_view(rows: list[Row]) -> list[Row]:
        parts: dict[str, list[Row]] = {
            v: [r for r in rows if r.conversation.view == v] for v in views
        }
        return _by_turns(parts, weights)

    def by_kind(rows: list[Row]) -> list[Row]:
        if weights.keys().isdisjoint(KIND_NAMES):
            return by_view(rows)
        kinds = sorted({row.conversation.kind for row in rows})
        parts = {k: by_view([r for r in rows if r.conversation.kind == k]) for k in kinds}
        return _by_turns(parts, weights)

    if weights.keys().isdisjoint(SOURCES):
        return by_kind(own)[:most]
    parts = {s: by_kind([r for r in own if r.conversation.source == s]) for s in SOURCES}
    return _by_turns(parts, weights)[:most]


def _by_turns(parts: Mapping[str, list[Row]], weights: Mapping[str, float]) -> list[Row]:
    """Rows of all parts, in any beginning of which each part has its share, to less than a row,
    until its rows are used up."""
    ranked: list[tuple[float, int, Row]] = []
    for order, (name, rows) in enumerate(parts.items()):
        weight = weights.get(name, 1.0)
        if weight > 0:
            ranked += [((i + 1) / weight, order, row) for i, row in enumerate(rows)]
    ranked.sort(key=lambda entry: entry[:2])
    return [row for _, _, row in ranked]


def with_questions(rows: Sequence[Row], most: int | None, *, seed: int) -> list[Row]:
    """The rows with at most `most` questions each, drawn by seed, in the order that they had."""
    if most is None:
        return list(rows)
    out = []
    for row in rows:
        own = sorted(row.questions, key=lambda q: digest([seed, q.example_id, q.question]))[:most]
        out.append(replace(row, questions=tuple(q for q in row.questions if q in own)))
    return out


def read_row(store: Activations, row: Row, layers: ReadLayers | int, *, masking: bool) -> Reading:
    """The row's own visible activations."""
    view = row.conversation.view
    return stored_reading(store, row.example_id, view, layers, masking=masking)


def row_turns(prompt: DecoderPrompt, row: Row) -> list[Turn]:
    """The row's questions and answers as tokens.

    Raises:
        DataError: one of them cannot be written in the model's chat template.
    """
    try:
        return [prompt.turn(q.question, q.answer) for q in row.questions]
    except DataError as error:
        conversation = row.conversation
        raise DataError(
            f"example {row.example_id} ({conversation.label}, view {conversation.view}): {error} "
            "Change or remove the question."
        ) from error


def askable(prompt: DecoderPrompt, rows: Sequence[Row]) -> tuple[list[Row], list[Dropped]]:
    """Rows without the questions that the model's chat template cannot write, and those questions.

    A question or answer that is empty or holds a control token is such a one; a row that is left
    with no question is left out.
    """
    kept, dropped = [], []
    for row in rows:
        conversation, questions = row.conversation, []
        for question in row.questions:
            try:
                prompt.turn(question.question, question.answer)
            except DataError as error:
                where = f"example {row.example_id} ({conversation.label}, {conversation.view})"
                raw = json.dumps([question.question, question.answer], ensure_ascii=False)
                dropped.append(
                    Dropped(reason="unwritable", where=where, detail=str(error), raw=raw)
                )
            else:
                questions.append(question)
        if questions:
            kept.append(replace(row, questions=tuple(questions)))
    return kept, dropped


def visible_tokens(store: Activations, row: Row, *, masking: bool) -> int:
    """Number of activations of the row that the decoder sees."""
    placed = store.place(row.example_id)
    return placed.n_tokens - withheld_tokens(
        row.conversation.view, placed.withheld, masking=masking
    )
