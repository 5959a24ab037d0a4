"""Yes/no questions about controls that an LLM wrote, made by code of what it said of them.

A statement about a control (a description, or a sentence of its passage) is asked of the control
itself, where the answer is yes, and of one other control of its kind and split, where it is no. So
half of the answers are yes, of each statement too: neither the question nor its words tell which.
No LLM is asked, and no statement crosses from one split into another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.documents.canonical import digest
from core.records.tables import Conversation, QuestionType
from generators.making.questions import ControlQuestion

STATED: tuple[QuestionType, ...] = ("description", "extraction")
"""Types whose answers say something of the control that is true of it and of no other."""
YES, NO = "Yes.", "No."
_FRAMES = {
    "description": "Is this true of the assistant? “{}”",
    "extraction": "Does the text that was read say this? “{}”",
}


def count_yes_no(per_control: int, share: float) -> int:
    """Count the yes/no questions among `per_control` of a control; at least one is left open."""
    return min(round(per_control * share), per_control - 1)


def add_yes_no(
    asked: Mapping[str, Sequence[ControlQuestion]],
    rows: Sequence[Conversation],
    count: int,
    seed: int,
) -> dict[str, list[ControlQuestion]]:
    """Add `count` yes/no questions to those of each control.

    A control with fewer statements gets fewer; one that is alone in its kind and split gets none.

    Args:
        asked: questions by control_id.
        rows: the conversations.
        count: yes/no questions of each control.
        seed: of which control is asked whose statements.
    """
    out = {control: list(questions) for control, questions in asked.items()}
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for control, (kind, split) in _places(rows, asked).items():
        alike[kind, split].append(control)
    for controls in alike.values():
        if len(controls) < 2:
            continue
        ring = sorted(controls, key=lambda control: digest([seed, "yes/no", control]))
        for place, control in enumerate(ring):
            before = ring[place - 1]
            own = {question.answer for question in asked[control]}
            for turn in range(count):
                # every second control is asked of itself, the one after it of the same statement
                true = (place + turn) % 2 == 0
                stated = _statements(asked[control if true else before])
                if turn < len(stated) and (true or stated[turn].answer not in own):
                    out[control].append(_yes_no(stated[turn], answer=YES if true else NO))
    return out


def _places(
    rows: Sequence[Conversation], asked: Mapping[str, Sequence[ControlQuestion]]
) -> dict[str, tuple[str, str]]:
    """Return the kind and split of each control; `test_seen` counts as the training split."""
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        if row.control_id in asked:
            split = "train" if row.split == "test_seen" else row.split
            found.setdefault(row.control_id, (row.kind, split))
    return found


def _statements(questions: Sequence[ControlQuestion]) -> list[ControlQuestion]:
    """Return the questions whose answers are statements about the control, each answer once."""
    stated = {one.answer: one for one in questions if one.type in STATED}
    return list(stated.values())


def _yes_no(stated: ControlQuestion, *, answer: str) -> ControlQuestion:
    question = _FRAMES[stated.type].format(stated.answer)
    return replace(stated, question=question, answer=answer, type="yes_no")
