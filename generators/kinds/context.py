"""Kind `context`: what stood before the text that the target reads, and what comes after.

A window of a document is cut into `lead`, `passage` and `rest`. The lead is the control, the
passage the stimulus, and the rest is never shown: so in the masked views the decoder has to tell
from the passage's activations what the target read before it, or what it expects after.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from random import Random

from core.documents.canonical import digest
from core.records.tables import Conversation, Dropped, QuestionType
from generators.kinds.base import DrawnControl, DrawnKind, QuestionAnswer
from generators.kinds.sources import ENDINGS, ResolvedTexts, SourceText
from generators.llm.prompt_files import PromptFiles

_BEFORE = (
    "What stood in the text right before the last passage?",
    "Which words came just before the passage that was shown last?",
    "How did the text before the last passage end?",
    "What had been read immediately before the passage?",
)
_AFTER = (
    "How does the text go on?",
    "What comes next in the text?",
    "Which words follow the text that has been read?",
    "What stands in the text right after this?",
)
_REACH = 20
"""Characters within which a cut moves on to the next white space."""
_SPACE = re.compile(r"\s")


class Context(DrawnKind):
    """Windows of documents; a document's windows share a label, and so fall into one split."""

    name = "context"
    views = ("control", "stimulus", "system")
    types = ("before", "after")
    acknowledgements = ("Please go on.", "I have read this. What comes next?", "Go on, please.")
    endings = ENDINGS
    drops_near_duplicates = True

    def categories(self, texts: PromptFiles) -> None:
        """Return None: the categories are those of the documents, known only once they are read."""

    def controls(
        self, seed: int, texts: PromptFiles, source: ResolvedTexts | None
    ) -> Iterator[DrawnControl | Dropped]:
        """Yield windows in the order of the documents; short and repeated ones as `Dropped`."""
        assert source is not None  # the plan was checked for it
        seen: set[str] = set()
        for found in source.documents():
            if isinstance(found, Dropped):
                yield found
                continue
            identity = digest(" ".join(found.text.split()))[:16]
            if identity in seen:
                yield _dropped("duplicate", found, "the text of an earlier document")
                continue
            seen.add(identity)
            draw = Random(f"{seed} context {identity}")
            windows = list(
                _windows(found, source.source.windows, source.source.characters, identity, draw)
            )
            if not windows:
                size = len(found.text)
                yield _dropped("too_short", found, f"{size} characters hold no whole window")
            yield from windows

    def questions(
        self, kind_of_question: QuestionType, row: Conversation, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionAnswer]:
        """Yield one question of a type, where the view has what it asks for."""
        facts = row.provenance["facts"]
        if kind_of_question == "after":
            answer = facts["passage"] if row.view == "control" else facts["after"]
            yield QuestionAnswer(question=draw.choice(_AFTER), answer=answer)
        elif row.view != "control":
            yield QuestionAnswer(question=draw.choice(_BEFORE), answer=facts["before"])


def _windows(
    document: SourceText, most: int, characters: int, identity: str, draw: Random
) -> Iterator[DrawnControl]:
    """Yield up to `most` windows that do not overlap, at drawn places."""
    text, answer = document.text.strip(), characters // 3
    width = 2 * characters + answer + 3 * _REACH
    count = min(most, len(text) // width)
    slack = sorted(draw.randint(0, len(text) - count * width) for _ in range(count))
    for number, shift in enumerate(slack):
        start = _cut(text, number * width + shift)
        middle = _cut(text, start + characters)
        end = _cut(text, middle + characters)
        lead, passage = text[start:middle].strip(), text[middle:end].strip()
        before = text[_cut(text, middle - answer) : middle].strip()
        follows = text[middle : _cut(text, middle + answer)].strip()
        after = text[end : _cut(text, end + answer)].strip()
        if not (lead and passage and before and follows and after):
            continue  # white space alone
        yield DrawnControl(
            category=document.category,
            label=f"context-{identity}",
            text=lead,
            stimuli=(passage,),
            facts={
                "where": document.where,
                "start": start,
                "before": before,
                "passage": follows,
                "after": after,
            },
        )


def _cut(text: str, at: int) -> int:
    """Move `at` on to the next white space, or to the next whole character where none is near."""
    if at == 0:
        return 0
    if space := _SPACE.search(text, at, at + _REACH):
        return space.start()
    while at < len(text) and unicodedata.combining(text[at]):
        at += 1
    return at


def _dropped(reason: str, document: SourceText, detail: str) -> Dropped:
    return Dropped(reason=reason, where=document.where, detail=detail, raw=document.text[:200])
