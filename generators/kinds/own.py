"""Questions that an LLM writes about the user's own conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from core.documents.canonical import digest
from core.records.tables import Conversation, Message, control_id, message_identity
from generators.kinds.base import DescribedKind

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


class Own(DescribedKind):
    """A kind for rows that were imported: only its questions are written."""

    name = "own"
    views = ("control", "stimulus", "stimulus_completion", "system")
    seeds = ""
    control_prompt = ""
    question_prompts = ("own_description", "own_prediction")
    descriptions = _DESCRIPTIONS
    predictions = _PREDICTIONS
    told_as = "conversation"

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Refuse: rows of this kind come from files."""
        raise NotImplementedError("controls of the kind `own` are imported, not written")

    def told_of(self, row: Conversation) -> str:
        """Return the control as a transcript, or the whole conversation if that is the control."""
        whole = digest([message_identity(message) for message in row.messages])
        if row.control_id == control_id(row.kind, whole):
            return _transcript(row.messages)
        return _transcript([message for message in row.messages if message.segment == "control"])


def _transcript(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)
