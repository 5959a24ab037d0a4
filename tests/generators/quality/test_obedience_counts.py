"""Replies under checkable instructions are counted, and those that obey."""

from __future__ import annotations

from table_rows import conversation

from core.records.tables import Conversation, Message
from generators.quality.describe import describe_dataset

CHECKS = {"form": {"form": "question"}, "persona": {"words": ["ahoy"]}}


def row(number: int, reply: str | None, facts: object = None) -> Conversation:
    messages = [
        Message(role="system", content="Be odd.", segment="control"),
        Message(role="user", content="Hm.", segment="stimulus"),
    ]
    if reply is not None:
        messages.append(Message(role="assistant", content=reply, segment="completion"))
    provenance = {} if facts is None else {"facts": facts}
    return conversation(str(number), messages=tuple(messages), provenance=provenance)


def test_replies_that_obey_are_counted_by_attribute() -> None:
    facts = {"checks": CHECKS}
    rows = [row(0, "Ahoy?", facts), row(1, "Ahoy!", facts), row(2, "No.", facts)]
    assert describe_dataset(rows, [], [])["obedience"] == {
        "form": {"replies": 3, "obeyed": 1},
        "persona": {"replies": 3, "obeyed": 2},
    }


def test_rows_without_a_reply_or_a_check_are_not_counted() -> None:
    rows = [row(0, None, {"checks": CHECKS}), row(1, "Ahoy?"), row(2, "Ahoy?", {"world": "x"})]
    assert describe_dataset(rows, [], [])["obedience"] == {}
