"""Kind `relation`: natural texts that end with a subject, whose object is asked for.

The target reads each text without a chat template, and a decoder that reads its last token (`train.
decoder.tokens: last:1`) reads the subject's last token: what the reading tasks ask of it
(arXiv 2412.08686, section 5.1). Texts of one subject fall into one split, whatever the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from core.documents.canonical import digest
from core.records.tables import Conversation, Dropped, QuestionType
from generators.kinds.base import DrawnControl, DrawnKind, QuestionAnswer
from generators.kinds.relation_files import (
    SUFFIXES,
    Relation,
    Subject,
    find_relation_files,
    read_relation,
)
from generators.kinds.sources import ResolvedTexts
from generators.llm.prompt_files import PromptFiles

RELATION = "relation"


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of a subject, with the relation whose file has it."""

    relation: Relation
    subject: Subject
    text: str


class Relations(DrawnKind):
    """Texts of files of relations; the category is the file's name."""

    name = RELATION
    views = ("control",)
    types = ("single_fact",)
    endings = SUFFIXES
    control_version = 3
    plain_text = True

    def categories(self, texts: PromptFiles) -> None:
        """Return None: the categories are the files, known only once they are read."""

    def controls(
        self, seed: int, texts: PromptFiles, source: ResolvedTexts | None
    ) -> Iterator[DrawnControl | Dropped]:
        """Yield texts: files by turns, subjects by hash, and of each one text after the other.

        At most `source.windows` texts of a subject of a file are taken. What several files ask
        about one text is asked about one control.
        """
        assert source is not None  # the plan was checked for it
        found_files = find_relation_files(source.source.paths, "relation.source.path")
        relations = [read_relation(path) for path in found_files.values()]
        for relation in relations:
            for rule, count in relation.dropped.items():
                reason = rule.replace(" ", "_")
                row = Dropped(reason=reason, where=relation.name, detail=rule, raw="")
                yield from itertools.repeat(row, count)
        found = [_ordered(relation, seed, source.source.windows) for relation in relations]
        asked: dict[str, list[_Text]] = {}
        for one in itertools.chain.from_iterable(found):
            asked.setdefault(one.text, []).append(one)
        for turn in itertools.zip_longest(*found):
            for one in turn:
                if one is not None and (own := asked.pop(one.text, None)) is not None:
                    yield _control(own)

    def questions(
        self, kind_of_question: QuestionType, row: Conversation, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionAnswer]:
        """Yield the forms in which tasks ask for the object, of each relation the first ones."""
        asked: list[dict[str, Any]] = row.provenance["facts"]["asked"]
        for forms in itertools.zip_longest(*(own["questions"] for own in asked)):
            for own, question in zip(asked, forms, strict=True):
                yield QuestionAnswer(question=question, answer=own["object"])


def _ordered(relation: Relation, seed: int, most: int) -> list[_Text]:
    """List the first text of every subject in an order drawn by hash, then the second, and on."""
    subjects = sorted(relation.subjects, key=lambda one: digest([seed, one.key]))
    columns = itertools.zip_longest(*(one.texts[:most] for one in subjects))
    return [
        _Text(relation, subject, text)
        for column in columns
        for subject, text in zip(subjects, column, strict=True)
        if text is not None
    ]


def _control(asked: list[_Text]) -> DrawnControl:
    first = asked[0]
    return DrawnControl(
        category=first.relation.name,
        label=first.subject.label,
        text=first.text,
        facts={
            "subject": first.subject.name,
            "asked": [
                {
                    "relation": one.relation.name,
                    "questions": list(one.subject.questions),
                    "object": one.subject.objects[0],
                }
                for one in asked
            ],
        },
    )
