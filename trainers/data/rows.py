"""The rows that a decoder is trained or evaluated on: conversations with their questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.documents.canonical import digest
from core.errors import DataError
from core.records.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
)
from core.records.tables import (
    COMPLETES,
    KIND_NAMES,
    SOURCES,
    Conversation,
    Dropped,
    Question,
    View,
)
from decoder.question_prompt import DecoderPrompt, Turn
from decoder.reading import Reading
from decoder.visible_tokens import ActivationSource, ReadLayers, count_withheld, read_visible


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation whose activations can be read, with at least one question about it."""

    conversation: Conversation
    questions: tuple[Question, ...]

    @property
    def example_id(self) -> str:
        """Id of the conversation."""
        return self.conversation.example_id


def load_rows(conversations: Path, questions: Path, store: ActivationSource) -> list[Row]:
    """Join conversations with their questions, in the order of the conversations.

    Those without activations and those without questions are left out: their own steps count them.

    Args:
        conversations: folder of the conversations table.
        questions: folder of the questions table.
        store: says which conversations have activations.

    Raises:
        DataError: no row is left.
    """
    asked: dict[str, list[Question]] = {}
    for question in read_questions(questions / QUESTIONS_FILE):
        asked.setdefault(question.example_id, []).append(question)
    rows = []
    for conversation in read_conversations(conversations / CONVERSATIONS_FILE):
        # a row with an on-policy completion keeps the questions of the row it was made from
        source = conversation.provenance.get(COMPLETES, conversation.example_id)
        found = asked.get(conversation.example_id) or asked.get(source)
        if found and conversation.example_id in store:
            rows.append(Row(conversation, tuple(found)))
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
    """Select at most `most` rows of one split, with sources, kinds and views interleaved by weight.

    Sources are mixed where `mixture` names one, likewise kinds within each source; views are always
    mixed within each kind. A row's rank within its part is a hash of seed and id, so that a smaller
    selection is part of a larger one, and every process selects the same.

    Args:
        rows: all rows.
        split: the split that is wanted.
        views: views that are wanted.
        most: most rows; None for all.
        seed: of the rows' ranks.
        mixture: weight by name of a source, kind or view; 1 where a name is missing, and at 0 none
            of its rows.
    """
    weights = mixture or {}
    wanted = [r for r in rows if r.conversation.split == split and r.conversation.view in views]
    wanted.sort(key=lambda row: digest([seed, row.example_id]))

    def by_view(rows: list[Row]) -> list[Row]:
        parts: dict[str, list[Row]] = {
            v: [r for r in rows if r.conversation.view == v] for v in views
        }
        return _interleave(parts, weights)

    def by_kind(rows: list[Row]) -> list[Row]:
        if weights.keys().isdisjoint(KIND_NAMES):
            return by_view(rows)
        kinds = sorted({row.conversation.kind for row in rows})
        parts = {k: by_view([r for r in rows if r.conversation.kind == k]) for k in kinds}
        return _interleave(parts, weights)

    if weights.keys().isdisjoint(SOURCES):
        return by_kind(wanted)[:most]
    parts = {s: by_kind([r for r in wanted if r.conversation.source == s]) for s in SOURCES}
    return _interleave(parts, weights)[:most]


def _interleave(parts: Mapping[str, list[Row]], weights: Mapping[str, float]) -> list[Row]:
    """Interleave parts so that every beginning of the list has each part's share.

    Shares are right to less than a row, until the rows of a part are used up.
    """
    ranked: list[tuple[float, int, Row]] = []
    for order, (name, rows) in enumerate(parts.items()):
        weight = weights.get(name, 1.0)
        if weight > 0:
            ranked += [((i + 1) / weight, order, row) for i, row in enumerate(rows)]
    ranked.sort(key=lambda entry: entry[:2])
    return [row for _, _, row in ranked]


def limit_questions(rows: Sequence[Row], most: int | None, *, seed: int) -> list[Row]:
    """Keep at most `most` questions of each row, drawn by seed, in their order."""
    if most is None:
        return list(rows)
    out = []
    for row in rows:
        drawn = sorted(row.questions, key=lambda q: digest([seed, q.example_id, q.question]))[:most]
        out.append(replace(row, questions=tuple(q for q in row.questions if q in drawn)))
    return out


def read_row(
    store: ActivationSource, row: Row, layers: ReadLayers | int, *, masking: bool
) -> Reading:
    """Read the row's own visible activations."""
    view = row.conversation.view
    return read_visible(store, row.example_id, view, layers, masking=masking)


def tokenize_questions(prompt: DecoderPrompt, row: Row) -> list[Turn]:
    """Tokenize the row's questions and answers.

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


def drop_unwritable_questions(
    prompt: DecoderPrompt, rows: Sequence[Row]
) -> tuple[list[Row], list[Dropped]]:
    """Drop questions that the model's chat template cannot write, and rows left without any.

    Such a question or its answer is empty, or holds a control token of the model.

    Returns:
        The remaining rows, and the dropped questions.
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


def count_visible_tokens(store: ActivationSource, row: Row, *, masking: bool) -> int:
    """Count the activations of the row that the decoder sees."""
    placed = store.place(row.example_id)
    return placed.n_tokens - count_withheld(
        row.conversation.view, placed.withheld, masking=masking, unread=placed.unread
    )
