"""The rows of the tables that every other step reads: conversations, questions, dropped rows.

`messages`, `provenance` and `flags` are kept as nested Arrow types or JSON text, so that
`datasets.load_dataset("parquet", ...)` and any other reader opens the files as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from core.documents.canonical import digest

View = Literal["control", "stimulus", "stimulus_completion", "system"]
Segment = Literal["template", "control", "stimulus", "completion"]
Split = Literal["train", "validation", "test", "test_ood", "test_seen"]

QuestionType = Literal[
    "description",
    "prediction",
    "extraction",
    "single_fact",
    "two_hop",
    "comparison",
    "counting",
    "negation",
    "before",
    "after",
    "yes_no",
]
"""What a question asks for; a profile's grades are types, so that whatever groups by type also
reads results by grade."""

VIEWS: tuple[View, ...] = ("control", "stimulus", "stimulus_completion", "system")
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "test_ood", "test_seen")
KIND_NAMES = ("persona", "goal", "extractive", "profile", "context", "instruction", "relation")
SOURCES = ("import", "generator")
PLAIN_TEXT = "text"
"""Role of the only message of a row that is natural text: no chat template is put around it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a target conversation.

    `tool_use` is JSON of the calls of tools that it makes or answers (core/records/tool_use.py).
    """

    role: str
    content: str
    segment: Segment
    tool_use: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One prompt that the target runs on; a row of `conversations`.

    `example_id` is the digest of label, view and messages; `control_id` the digest of kind and
    control text; `group_id` is shared by rows that share a label or a control text.
    """

    example_id: str
    control_id: str
    group_id: str
    kind: str
    category: str
    label: str
    view: View
    split: Split
    source: str
    messages: tuple[Message, ...]
    completion_origin: str | None = None
    flags: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> str:
        """The control's own text: the first message of segment `control`."""
        return next(m.content for m in self.messages if m.segment == "control")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question about an example, with its gold answer; a row of `questions`."""

    example_id: str
    question: str
    answer: str
    type: str | None = None
    flags: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A row that was not kept: the rule's name, where the row stood, why in words, the row."""

    reason: str
    where: str
    detail: str
    raw: str


COMPLETES = "completes"
"""Key of a completed row's provenance: the example_id of the row that it completes."""


def with_questions_of_completed(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> list[Question]:
    """Return the questions about `conversations`; a completed row has those of its original."""
    asked: dict[str, list[Question]] = {}
    for question in questions:
        asked.setdefault(question.example_id, []).append(question)
    found: list[Question] = []
    for row in conversations:
        own = asked.get(row.example_id)
        if own is None:
            original = asked.get(row.provenance.get(COMPLETES, ""), [])
            own = [replace(one, example_id=row.example_id) for one in original]
        found += own
    return found


def example_id(label: str, view: View, messages: Iterable[Message]) -> str:
    """Return the content hash of a conversation, 16 hex digits."""
    return digest([label, view, [message_identity(m) for m in messages]])[:16]


def message_identity(message: Message) -> list[str]:
    """List the fields of a message that enter digests; tool use only where it has any."""
    plain = [message.role, message.content, message.segment]
    return plain if message.tool_use is None else [*plain, message.tool_use]


def control_id(kind: str, control: str) -> str:
    """Return the content hash of a control, 16 hex digits."""
    return digest([kind, control])[:16]
