"""Questions about the activations of a conversation, and the answers of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from core.records.tables import Message, View
from decoder.asking import Answer
from decoder.sources.token_choice import VISIBLE
from decoder.sources.training_distribution import OODScore
from evaluators.answers.metrics.words import word_f1


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A conversation to read, and what to ask about it.

    Attributes:
        view: which of control, stimulus and completion it has (design: views).
        messages: what the target runs on.
        questions: at least one.
        tokens: which of its tokens are read (decoder/sources/token_choice.py).
    """

    view: View
    messages: tuple[Message, ...]
    questions: tuple[str, ...]
    tokens: str = VISIBLE

    def to_json(self) -> dict[str, Any]:
        """Return the conversation as plain JSON types."""
        own = ("role", "content", "segment")
        said = [{name: getattr(message, name) for name in own} for message in self.messages]
        return {"view": self.view, "messages": said}


@dataclass(frozen=True, kw_only=True, slots=True)
class AskResult:
    """Questions about one conversation, their answers, and what was read.

    Attributes:
        prompt: the conversation and the questions.
        layers: blocks whose output was read.
        activations: activations that the decoder was given.
        length: tokens of the conversation.
        withheld: of the activations read, those that the decoder's training withheld.
        answers: one a question, in order, each token the likeliest.
        samples: of each question, answers that were drawn; empty where none were asked for.
        ood: how far what was read lies from what the decoder was trained on; None where
            that is not at hand.
    """

    prompt: Prompt
    layers: tuple[int, ...]
    activations: int
    length: int
    withheld: int
    answers: tuple[Answer, ...]
    samples: tuple[tuple[Answer, ...], ...]
    ood: OODScore | None = None

    @property
    def view(self) -> View:
        """The view that the target saw."""
        return self.prompt.view

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that the target ran on."""
        return self.prompt.messages

    @property
    def agreement(self) -> tuple[float | None, ...]:
        """Of each question, how far its drawn answers agree (see `answer_agreement`)."""
        return tuple(answer_agreement([own.text for own in drawn]) for drawn in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return the whole as a JSON document."""
        questions = zip(
            self.prompt.questions, self.answers, self.samples, self.agreement, strict=True
        )
        return {
            **self.prompt.to_json(),
            "layers": list(self.layers),
            "tokens": {
                "choice": self.prompt.tokens,
                "of": self.length,
                "withheld_in_training": self.withheld,
            },
            "activations": self.activations,
            "ood": None if self.ood is None else self.ood.to_json(),
            "answers": [
                {
                    "question": question,
                    **_answer(found),
                    "tokens": [
                        {"text": text, "log_probability": chance}
                        for text, chance in zip(
                            found.tokens, found.token_log_probabilities, strict=True
                        )
                    ],
                    "samples": [_answer(own) for own in drawn],
                    "agreement": agreed,
                }
                for question, found, drawn, agreed in questions
            ],
        }


def answer_agreement(texts: Sequence[str]) -> float | None:
    """Average the token F1 of each two of `texts`; None for fewer than two.

    1 means that all have the same words. It measures how sure the decoder is, not whether it is
    right.
    """
    if len(texts) < 2:
        return None
    return fmean(word_f1(first, second) for first, second in combinations(texts, 2))


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "log_probability": answer.log_probability,
        "finished": answer.finished,
    }
