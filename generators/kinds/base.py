"""A kind of control implements one of two interfaces: written by an LLM, or drawn by code.

```
Kind                    name, views, types, categories
├── WrittenKind         an LLM is asked; the kind makes text of its replies
│   └── DescribedKind       asked what it is, and how the assistant would speak of a subject
└── DrawnKind           drawn by code alone, with exact answers: no LLM
```

Asking, filtering, replacing, splitting and writing are the same for all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from core.records.tables import Conversation, Dropped, QuestionType, View
from generators.kinds.sources import ResolvedTexts
from generators.llm.prompt_files import PromptFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionAnswer:
    """A question with its gold answer."""

    question: str
    answer: str


class Kind(ABC):
    """One kind of control.

    Class attributes:
        name: as in the config and the column `kind`.
        views: the views that its controls can be seen in.
        types: the types of questions that can be asked about it.
        control_texts: seeds files that its controls draw on.
        question_texts: seeds files that its questions draw on.
        control_version: raised when code draws other controls from the same seeds or files.
        question_version: raised when code asks or answers otherwise about the same controls.
        acknowledgements: what the assistant says to its control.
        endings: endings of the files that its plan names as `source`; empty where it reads none.
        plain_text: whether its controls are natural text, which the target reads without its chat
            template.
    """

    name: ClassVar[str]
    views: ClassVar[tuple[View, ...]]
    types: ClassVar[tuple[QuestionType, ...]]
    control_texts: ClassVar[tuple[str, ...]] = ()
    question_texts: ClassVar[tuple[str, ...]] = ()
    control_version: ClassVar[int] = 1
    question_version: ClassVar[int] = 1
    acknowledgements: ClassVar[tuple[str, ...]] = ("Understood.",)
    endings: ClassVar[tuple[str, ...]] = ()
    plain_text: ClassVar[bool] = False

    @abstractmethod
    def categories(self, texts: PromptFiles) -> Collection[str] | None:
        """Return the categories that can be held out; None where only the rows name them."""


@dataclass(frozen=True, kw_only=True)
class QuestionRequest:
    """One request that makes questions.

    Attributes:
        prompt: name of the template.
        values: what fills it.
        questions: the question for each property of the reply, where it is known before asking.
            A property that is not in here is the question itself, asked about `about`.
        frame: what is put around a written answer, at its `{}`.
        about: the answer to a question that the LLM writes.
    """

    prompt: str
    values: Mapping[str, str]
    questions: Mapping[str, str] = field(default_factory=dict)
    frame: str = "{}"
    about: str = ""

    @property
    def rows(self) -> int:
        """Questions that a good reply makes."""
        return len(self.questions) or 1

    def read(self, reply: Mapping[str, Any]) -> list[QuestionAnswer]:
        """Extract the questions and answers from `reply`."""
        if self.questions:
            return [
                QuestionAnswer(
                    question=question, answer=self.frame.replace("{}", sentence(reply[name]))
                )
                for name, question in self.questions.items()
            ]
        return [QuestionAnswer(question=reply["question"], answer=self.about)]


class WrittenKind(Kind):
    """A kind whose controls and answers an LLM writes.

    Class attributes, besides those of every kind:
        seeds: file of seeds, category → ideas.
        control_prompt: template that turns an idea into the makings of a control.
        question_prompts: every template that its questions use.
    """

    seeds: ClassVar[str]
    control_prompt: ClassVar[str]
    question_prompts: ClassVar[tuple[str, ...]]

    def categories(self, texts: PromptFiles) -> Collection[str]:
        """Return the categories of the seeds."""
        return texts.seeds_by_category(self.seeds)

    def control_values(self, idea: str, texts: PromptFiles, draw: Random) -> dict[str, str]:
        """Return what fills `control_prompt`: the seed as `{{idea}}`, and what a kind adds.

        Args:
            idea: the seed.
            texts: prompts and seeds.
            draw: the only source of chance that may be used.
        """
        return {"idea": idea}

    def told_of(self, row: Conversation) -> str:
        """Return what the LLM is told of a row that it writes questions about: its control."""
        return row.control

    @abstractmethod
    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Write the control's text.

        Args:
            idea: the seed.
            reply: the LLM's reply to `control_prompt`.
            draw: as above.
        """

    @abstractmethod
    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests for questions about `control`, best first; may end."""


class DescribedKind(WrittenKind):
    """A kind that is asked what it is, and how the assistant would speak of everyday subjects.

    Class attributes, besides those of every written kind:
        descriptions: wordings of each question about the control, by the field of the reply to the
            prompt `NAME_description` that answers it.
        predictions: wordings of the question about a subject, which the prompt `NAME_prediction`
            answers.
        told_as: slot of these prompts that takes the control.
    """

    types = ("description", "prediction")
    question_texts = ("everyday",)
    descriptions: ClassVar[Mapping[str, Sequence[str]]]
    predictions: ClassVar[Sequence[str]]
    told_as: ClassVar[str] = "control"

    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests: two differently worded descriptions each, or one prediction."""
        cycles = {name: shuffled_cycle(items, draw) for name, items in self.descriptions.items()}
        while kind_of_question == "description":
            yield QuestionRequest(
                prompt=f"{self.name}_description",
                values={self.told_as: control},
                questions={name: next(items) for name, items in cycles.items()},
            )
        wordings = shuffled_cycle(self.predictions, draw)
        for subject in shuffled_cycle(texts.seed_list("everyday"), draw):
            yield self.prediction(control, subject, next(wordings).format(subject))

    def prediction(self, control: str, subject: str, question: str) -> QuestionRequest:
        """Make the request for a prediction about a subject."""
        return QuestionRequest(
            prompt=f"{self.name}_prediction",
            values={self.told_as: control, "subject": subject},
            questions={"answer": question},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnControl:
    """A control that no LLM wrote.

    Attributes:
        label: stable, and the same for controls that must fall into one split.
        text: the control.
        facts: what its questions are made from, as plain JSON values; kept in the rows'
            provenance.
        stimuli: user messages after it, of which a plan takes the first so many; empty where the
            kind has only the view `control`.
    """

    category: str
    label: str
    text: str
    facts: Mapping[str, Any]
    stimuli: tuple[str, ...] = ()


class DrawnKind(Kind):
    """A kind that code draws: controls without an LLM, and answers that are exact.

    Class attributes, besides those of every kind:
        drops_near_duplicates: whether a control that is nearly an earlier one is left out.
    """

    drops_near_duplicates: ClassVar[bool] = False

    @abstractmethod
    def controls(
        self, seed: int, texts: PromptFiles, source: ResolvedTexts | None
    ) -> Iterator[DrawnControl | Dropped]:
        """Yield controls in a fixed order, until the caller stops or the source ends.

        The order must not depend on how many are taken: a larger plan begins with a smaller one.

        Args:
            seed: the only source of chance that may be used.
            texts: prompts and seeds.
            source: the texts that the plan names, where the kind reads any.

        Returns:
            controls, and between them what was not fit to become one.
        """

    @abstractmethod
    def questions(
        self, kind_of_question: QuestionType, row: Conversation, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionAnswer]:
        """Yield distinct questions about `row`; their number may be limited.

        Args:
            kind_of_question: their type.
            row: the conversation; its `provenance["facts"]` are those of its control.
            texts: prompts and seeds.
            draw: the only source of chance that may be used; the same for all rows of a control.
        """


def sentence(text: str) -> str:
    """Give `text` a capital letter and a full stop, where it has none."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in ".!?\"'”’" else text + "."


def clause(text: str) -> str:
    """Strip the final punctuation of `text`, so that it can be part of a sentence."""
    return text.strip().rstrip(".!,; ")


def shuffled_cycle(items: Sequence[str], draw: Random) -> Iterator[str]:
    """Yield `items` in a drawn order, again and again."""
    order = list(items)
    draw.shuffle(order)
    while True:
        yield from order
