"""Questions that an LLM writes about conversations of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from core.canonical import digest
from core.tables import Conversation, Message, QuestionType, control_id, message_identity
from generators.kinds.base import QuestionRequest, WrittenKind, reworded_requests, shuffled_cycle
from generators.llm.prompt_files import PromptFiles

_DESCRIPTIONS = {
    "who": (
        "Who or what is the assistant in this conversation?",
        "What is this conversation about, and what is the assistant there for?",
        "How would you describe the assistant's part?",
        "What has been set up for the assistant?",
    ),
    "how": (
        "What is expected of the assistant's replies?",
        "How is the assistant to go about its answers?",
        "What should the assistant heed when it replies?",
        "What marks the replies that are wanted here?",
    ),
}
_PREDICTIONS = (
    "How would the assistant answer if the user asked about {} next?",
    "What would a reply of the assistant about {} be like?",
    "If the talk turned to {}, how would the assistant respond?",
)


class Own(WrittenKind):
    """A kind for rows that were imported: only its questions are written."""

    name = "own"
    views = ("control", "stimulus", "stimulus_completion", "system")
    types = ("description", "prediction")
    seeds = ""
    control_prompt = ""
    question_prompts = ("own_description", "own_prediction")
    question_texts = ("everyday",)

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Refuse: rows of this kind come from files."""
        raise NotImplementedError("controls of the kind `own` are imported, not written")

    def told_of(self, row: Conversation) -> str:
        """Return the row's control as a transcript; the whole conversation where that is it."""
        whole = digest([message_identity(message) for message in row.messages])
        if row.control_id == control_id(row.kind, whole):
            return _transcript(row.messages)
        return _transcript([message for message in row.messages if message.segment == "control"])

    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests: two differently worded descriptions each, or one prediction."""
        if kind_of_question == "description":
            yield from reworded_requests(
                "own_description", {"conversation": control}, _DESCRIPTIONS, draw
            )
        frames = shuffled_cycle(_PREDICTIONS, draw)
        for subject in shuffled_cycle(texts.seed_list("everyday"), draw):
            yield QuestionRequest(
                prompt="own_prediction",
                values={"conversation": control, "subject": subject},
                questions={"answer": next(frames).format(subject)},
            )


def _transcript(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)
