"""What is done to a row to see whether the decoder still reads it.

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

from core.canonical import digest
from core.tables import Message
from trainers.rows import Row

_WORDS = Path(__file__).with_name("alterations.yaml")


@dataclass(frozen=True, slots=True)
class Altered:
    """A row as it is altered.

    Attributes:
        messages: what the target runs on.
        questions: what is asked, in the order of the row's own questions.
    """

    messages: tuple[Message, ...]
    questions: tuple[str, ...]


Alteration = Callable[[Row, Row, int], Altered]
"""Alters a row, given another control's row of the same kind and a seed."""


def plain(row: Row) -> Altered:
    """The row as it is."""
    return Altered(row.conversation.messages, tuple(own.question for own in row.questions))


def _decoy(row: Row, other: Row, seed: int) -> Altered:
    own = plain(row)
    users = [i for i, m in enumerate(own.messages) if m.role == "user"]
    pattern = _draw("decoy", row, seed)
    return _with_content(
        own,
        users[-1],
        lambda text: pattern.format(message=text, other=other.conversation.control),
    )


def _forbidden(row: Row, other: Row, seed: int) -> Altered:
    own = plain(row)
    first = [message.segment for message in own.messages].index("control")
    pattern = _draw("forbidden", row, seed)
    return _with_content(own, first, lambda text: pattern.format(control=text))


def _novel_question(row: Row, other: Row, seed: int) -> Altered:
    own = plain(row)
    asked = (_draw("novel_question", row, seed, question) for question in own.questions)
    return replace(
        own,
        questions=tuple(
            pattern.format(question=question)
            for pattern, question in zip(asked, own.questions, strict=True)
        ),
    )


ALTERATIONS: dict[str, Alteration] = {
    "decoy": _decoy,
    "forbidden": _forbidden,
    "novel_question": _novel_question,
}
"""Alteration by name."""


def _with_content(own: Altered, at: int, change: Callable[[str], str]) -> Altered:
    messages = list(own.messages)
    messages[at] = replace(messages[at], content=change(messages[at].content))
    return replace(own, messages=tuple(messages))


def _draw(name: str, row: Row, seed: int, more: str = "") -> str:
    patterns = _patterns()[name]
    number = int(digest([seed, name, row.example_id, more])[:12], 16)
    return patterns[number % len(patterns)]


@functools.cache
def _patterns() -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = yaml.safe_load(_WORDS.read_text(encoding="utf-8"))
    return found
