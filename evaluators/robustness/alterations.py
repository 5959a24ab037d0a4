"""Alterations of rows, by which it is measured whether the decoder still reads them.

| alteration | what changes | what the answer should be |
|---|---|---|
| decoy | the user also quotes another control, and says that it is not meant | the row's own |
| forbidden | the control also forbids to reveal it | the row's own |
| novel_question | the question comes in words that no training question has | the same |

Words are packaged (alterations.yaml) and drawn by seed; no LLM writes any. To add one, write its
function, its words, and name it in `ALTERATIONS` and in `AlterationName`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from core.documents.canonical import digest
from core.records.tables import PLAIN_TEXT, Conversation, Message
from trainers.data.rows import Row

_WORDS = Path(__file__).with_name("alterations.yaml")


@dataclass(frozen=True, slots=True)
class AlteredRow:
    """A row after an alteration.

    Attributes:
        conversation: what the target runs on; a reply that it wrote stays its own tokens.
        questions: what is asked, in the order of the row's own questions.
    """

    conversation: Conversation
    questions: tuple[str, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the conversation."""
        return self.conversation.messages


Alteration = Callable[[Row, Row, int], AlteredRow]
"""Alters a row, given another control's row of the same kind and a seed."""


def keep_unaltered(row: Row) -> AlteredRow:
    """Return the row as it is."""
    return AlteredRow(row.conversation, tuple(asked.question for asked in row.questions))


def _add_decoy(row: Row, other: Row, seed: int) -> AlteredRow:
    unaltered = keep_unaltered(row)
    users = [i for i, m in enumerate(unaltered.messages) if m.role in ("user", PLAIN_TEXT)]
    pattern = _draw("decoy", row, seed)
    return _with_content(
        unaltered,
        users[-1],
        lambda text: pattern.format(message=text, other=other.conversation.control),
    )


def _forbid_revealing(row: Row, other: Row, seed: int) -> AlteredRow:
    unaltered = keep_unaltered(row)
    first = [message.segment for message in unaltered.messages].index("control")
    pattern = _draw("forbidden", row, seed)
    return _with_content(unaltered, first, lambda text: pattern.format(control=text))


def _rephrase_questions(row: Row, other: Row, seed: int) -> AlteredRow:
    unaltered = keep_unaltered(row)
    asked = (_draw("novel_question", row, seed, question) for question in unaltered.questions)
    return replace(
        unaltered,
        questions=tuple(
            pattern.format(question=question)
            for pattern, question in zip(asked, unaltered.questions, strict=True)
        ),
    )


ALTERATIONS: dict[str, Alteration] = {
    "decoy": _add_decoy,
    "forbidden": _forbid_revealing,
    "novel_question": _rephrase_questions,
}
"""Alteration by name."""


def _with_content(altered: AlteredRow, at: int, change: Callable[[str], str]) -> AlteredRow:
    messages = list(altered.messages)
    messages[at] = replace(messages[at], content=change(messages[at].content))
    conversation = replace(altered.conversation, messages=tuple(messages))
    return replace(altered, conversation=conversation)


def _draw(name: str, row: Row, seed: int, more: str = "") -> str:
    patterns = _patterns()[name]
    number = int(digest([seed, name, row.example_id, more])[:12], 16)
    return patterns[number % len(patterns)]


@functools.cache
def _patterns() -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = yaml.safe_load(_WORDS.read_text(encoding="utf-8"))
    return found
