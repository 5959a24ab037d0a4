"""What a kind of control is: the interface that persona, goal and extractive implement.

A kind says what the LLM is asked for its controls and questions, and makes text of the replies.
Asking, filtering, replacing, splitting and writing are the same for all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from generators.generate_config import QuestionType
from generators.schema import View
from generators.texts import Texts


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question with its gold answer."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class QuestionAsk:
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

    def read(self, reply: Mapping[str, Any]) -> list[Answered]:
        """Questions and answers of `reply`."""
        if self.questions:
            return [
                Answered(question=question, answer=self.frame.replace("{}", sentence(reply[name])))
                for name, question in self.questions.items()
            ]
        return [Answered(question=reply["question"], answer=self.about)]


class Kind(ABC):
    """One kind of control.

    Class attributes:
        name: as in the config and the column `kind`.
        views: the views that its controls can be seen in.
        types: the types of questions that can be asked about it.
        seeds: file of seeds, category → ideas.
        control_texts: other seeds files that its controls draw on.
        control_prompt: template that turns an idea into the makings of a control.
        question_texts: other seeds files that its questions draw on.
        question_prompts: every template that its questions use.
        acknowledgements: what the assistant says to its control.
    """

    name: ClassVar[str]
    views: ClassVar[tuple[View, ...]]
    types: ClassVar[tuple[QuestionType, ...]]
    seeds: ClassVar[str]
    control_prompt: ClassVar[str]
    control_texts: ClassVar[tuple[str, ...]] = ()
    question_prompts: ClassVar[tuple[str, ...]]
    question_texts: ClassVar[tuple[str, ...]] = ()
    acknowledgements: ClassVar[tuple[str, ...]] = ("Understood.",)

    def control_values(self, idea: str, texts: Texts, draw: Random) -> dict[str, str]:
        """What fills `control_prompt`: the seed as `{{idea}}`, unless a kind has more to give.

        Args:
            idea: the seed.
            texts: prompts and seeds.
            draw: the only source of chance that may be used.
        """
        return {"idea": idea}

    @abstractmethod
    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """The control's text.

        Args:
            idea: the seed.
            reply: the LLM's reply to `control_prompt`.
            draw: as above.
        """

    @abstractmethod
    def questions(
        self, kind_of_question: QuestionType, control: str, texts: Texts, draw: Random
    ) -> Iterator[QuestionAsk]:
        """What to ask for questions about `control`, best first, as long as anyone wants more."""


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop, if it has neither."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in ".!?\"'”’" else text + "."


def clause(text: str) -> str:
    """`text` as a part of a sentence: no full stop."""
    return text.strip().rstrip(".!,; ")


def rounds(items: Sequence[str], draw: Random) -> Iterator[str]:
    """`items` in a drawn order, again and again."""
    order = list(items)
    draw.shuffle(order)
    while True:
        yield from order
