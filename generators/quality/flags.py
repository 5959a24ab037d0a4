"""Flag rows that look wrong by rules, without asking an LLM.

Nothing is dropped here. A flag stands with its row; whether flagged rows are dropped is a setting
(`generators.quality.config`). Rules that judge what an LLM writes spare the kinds that code draws:
their answers are exact, and a counting question may well hold the words of its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from core.records.tables import Conversation, Dropped, Question, Segment
from core.records.tool_use import message_text
from generators.kinds import KINDS
from generators.kinds.base import DrawnKind
from generators.llm.chat.reply_json import Rejection
from generators.quality.config import FLAGS, RulesConfig
from generators.quality.findings import FlagCount, FlagCounts
from generators.rules.duplicates import Duplicates
from generators.rules.refusals import find_refusal
from generators.rules.text import (
    content_words,
    find_control_leak,
    find_repetition,
    find_unsupported,
)

CONTINUED = "context"
"""The kind whose stimulus goes on where its control ends, and so shares its words by design."""


@dataclass(kw_only=True)
class Flags:
    """The flags of a data set.

    Attributes:
        conversations: example_id → its faults.
        questions: the faults of each question, in the order of the questions.
        compared: controls that were looked through for near-duplicates.
    """

    conversations: dict[str, list[Rejection]] = field(default_factory=dict)
    questions: list[list[Rejection]]
    compared: int = 0

    def count(self, rows: int) -> FlagCounts:
        """Count the rows with each flag, of `rows` conversations and questions together."""
        found: dict[str, list[str]] = {}
        for faults in (*self.conversations.values(), *self.questions):
            for fault in faults:
                found.setdefault(fault.reason, []).append(fault.detail)
        flagged = {flag: found[flag] for flag in FLAGS if flag in found}
        return FlagCounts(
            flags={
                flag: FlagCount(rows=len(own), share=len(own) / rows)
                for flag, own in flagged.items()
            },
            examples={flag: own[0] for flag, own in flagged.items()},
            compared=self.compared,
        )


def flag_rows(
    conversations: Sequence[Conversation], questions: Sequence[Question], rules: RulesConfig
) -> Flags:
    """Compute the flags that need no LLM.

    Args:
        conversations: all rows of the data set.
        questions: those about these conversations.
        rules: the thresholds.
    """
    flags = Flags(questions=[[] for _ in questions])
    twins, flags.compared = _near_duplicates(conversations, rules)
    for row in conversations:
        faults = [*twins.get(row.control_id, ()), *_of_conversation(row, rules)]
        if faults:
            flags.conversations[row.example_id] = faults
    rows = {row.example_id: row for row in conversations}
    asked: dict[str, set[str]] = {}
    for question, faults in zip(questions, flags.questions, strict=True):
        row = rows[question.example_id]
        before = asked.setdefault(row.example_id, set())
        faults += _of_question(question, row, before, rules)
        before.add(question.question.casefold())
    return flags


def apply_flags(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    flags: Flags,
    drop: Sequence[str],
) -> tuple[list[Conversation], list[Question], list[Dropped]]:
    """Write the flags into the rows and drop the questions with a flag in `drop`.

    Conversations all stay, so that what was computed from them stays too; one with a flag in `drop`
    loses its questions.
    """
    marked = [
        replace(row, flags=_names(row.flags, flags.conversations.get(row.example_id, ())))
        for row in conversations
    ]
    kept: list[Question] = []
    dropped: list[Dropped] = []
    for question, own in zip(questions, flags.questions, strict=True):
        faults = [*own, *flags.conversations.get(question.example_id, ())]
        fault = next((fault for fault in faults if fault.reason in drop), None)
        if fault is None:
            kept.append(replace(question, flags=_names(question.flags, own)))
            continue
        dropped.append(
            Dropped(
                reason=fault.reason,
                where=f"question of {question.example_id}",
                detail=fault.detail,
                raw=f"{question.question} | {question.answer}",
            )
        )
    return marked, kept, dropped


def segment_text(row: Conversation, segment: Segment) -> str | None:
    """Join what the row's messages of `segment` say; None where it has none."""
    found = [message_text(message) for message in row.messages if message.segment == segment]
    return "\n\n".join(found) if found else None


def is_drawn(kind: str) -> bool:
    """Tell whether code draws this kind, with exact answers."""
    return isinstance(KINDS.get(kind), DrawnKind)


def _near_duplicates(
    conversations: Sequence[Conversation], rules: RulesConfig
) -> tuple[Mapping[str, list[Rejection]], int]:
    """Flag controls that are near-duplicates of a control of an earlier group, by control_id."""
    first: dict[str, Conversation] = {}
    for row in conversations:
        if len(first) == rules.most_compared and row.control_id not in first:
            break
        first.setdefault(row.control_id, row)
    seen = Duplicates(rules.near_duplicate)
    found: dict[str, list[Rejection]] = {}
    for row in first.values():
        if fault := seen.find(row.control, row.group_id):
            found[row.control_id] = [fault]
        seen.add(row.control, row.group_id)
    return found, len(first)


def _of_conversation(row: Conversation, rules: RulesConfig) -> list[Rejection]:
    stimulus, completion = segment_text(row, "stimulus"), segment_text(row, "completion")
    size = sum(len(message_text(message)) for message in row.messages)
    found: list[Rejection | None] = []
    if stimulus is not None and row.kind != CONTINUED:
        found.append(find_control_leak(stimulus, row.control, row.label, rules.shared_words))
    if completion is not None:
        found += [find_refusal(completion), find_repetition(completion, rules.repetition)]
    if rules.longest is not None and size > rules.longest:
        found.append(Rejection("too_long", f"{size:,} characters"))
    return [fault for fault in found if fault is not None]


def _of_question(
    question: Question, row: Conversation, before: set[str], rules: RulesConfig
) -> list[Rejection]:
    found: list[Rejection | None] = []
    if question.question.casefold() in before:
        found.append(Rejection("repeated_question", question.question[:80]))
    if not is_drawn(row.kind):
        found += [
            find_refusal(question.answer),
            find_repetition(question.answer, rules.repetition),
            _unsupported(question.answer, row),
            _told_by_question(question),
        ]
    return [fault for fault in found if fault is not None]


def _unsupported(answer: str, row: Conversation) -> Rejection | None:
    if find_unsupported(answer, " ".join(map(message_text, row.messages))) is None:
        return None
    return Rejection("unsupported", f"of {row.label}: {answer[:80]}")


def _told_by_question(question: Question) -> Rejection | None:
    answer = set(content_words(question.answer))
    if answer and answer <= set(content_words(question.question)):
        return Rejection("answer_in_question", f"all of it: {', '.join(sorted(answer))}")
    return None


def _names(own: Sequence[str], faults: Sequence[Rejection]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*own, *(fault.reason for fault in faults)]))
