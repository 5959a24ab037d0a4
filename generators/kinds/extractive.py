"""Kind `extractive`: the assistant has a passage in mind and is asked what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from core.records.tables import QuestionType
from generators.kinds.base import QuestionRequest, WrittenKind, sentence, shuffled_cycle
from generators.llm.prompt_files import PromptFiles
from generators.rules.words import words

_OPENINGS = (
    "Please remember the following news story.",
    "Read this story carefully and keep it in mind.",
    "Here is a report that I will ask you about later.",
    "Take note of what this article says.",
)
_WORDS = 5  # a shorter sentence answers nothing
_OPENING = "\"'“‘«„¿¡("
_CLOSING = "[\"'”’»)」』）\\]]*"
_END_OF_SENTENCE = re.compile(
    rf"(?<=[.!?…]){_CLOSING}\s+(?=[{_OPENING}]*[^\W\d_])|(?<=[。！？｡]){_CLOSING}\s*|(?<=[।॥؟۔።។။]){_CLOSING}\s*"
)
"""Where a sentence may end: before a letter, and in scripts with stops of their own everywhere."""
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Mx|Messrs|Dr|Drs|Prof|St|Ste|Sra?|Jr|Capt|Cmdr|Col|Gen|Lt|Sgt|Maj|Adm|Rev"
    r"|Hon|Gov|Sen|Rep|Pres|Fr|Mme|Mlle|Hr|Mt|Ft|vs|cf|ca|approx|Inc|Ltd|Co|Corp|Bros|Dept|Univ|Ave"
    r"|Blvd|Rd|No|Nos|Nr|Fig|Vol|Ch|pp|Ph\.D|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|bzw|Str)"
    r"|\b[A-ZÀ-ÞΑ-ΩА-Я]|(?<!\S)[^\W\d_])\.$"
)
"""A full stop that ends no sentence: of an abbreviation, or of an initial."""


class Extractive(WrittenKind):
    """A passage of a few sentences; each answer is a sentence that stands in it."""

    name = "extractive"
    views = ("control",)
    types = ("extraction",)
    seeds = "extractive"
    control_prompt = "extractive_control"
    control_texts = ("extractive_details",)
    question_prompts = ("extractive_question",)

    def control_values(self, idea: str, texts: PromptFiles, draw: Random) -> dict[str, str]:
        """Return topic, people, place and time: without these, passages come out vague."""
        details = texts.seeds_by_category("extractive_details")
        return {"idea": idea} | {
            name: draw.choice(details[name]) for name in ("people", "places", "times")
        }

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Join an opening and the sentences of the reply."""
        passage = " ".join(sentence(text) for text in reply.values())
        return f"{draw.choice(_OPENINGS)}\n\n{passage}"

    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests for a question that a sentence answers, by turns over the sentences."""
        passage = control.rsplit("\n\n", 1)[-1]
        sentences = [s for s in split_sentences(passage) if len(words(s)) >= _WORDS]
        for chosen in shuffled_cycle(sentences, draw) if sentences else ():
            yield QuestionRequest(
                prompt="extractive_question", values={"sentence": chosen}, about=chosen
            )


def split_sentences(text: str) -> list[str]:
    """Split `text` into sentences; abbreviations and initials end none."""
    found: list[str] = []
    start = 0
    for end in _END_OF_SENTENCE.finditer(text):
        own = text[start : end.start()]
        begins = text[end.end() : end.end() + 2].lstrip(_OPENING)
        if not _ABBREVIATION.search(own) and not begins[:1].islower():
            found.append(text[start : end.end()].strip())
            start = end.end()
    return [*found, *filter(None, [text[start:].strip()])]
