"""Controls for steering that an LLM writes: kept where they keep to the rules, asked for again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import resolved
from scripted_endpoint import ScriptedEndpoint

from core.errors import DataError
from core.records.steering_control import load_control, write_control
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe, plausible_reply
from generators.making.steering_controls import WrittenControl, write_steering_control

SENTENCE = "a pirate captain who loves parrots"


def good(**changes: Any) -> dict[str, Any]:
    questions = [
        {"question": "Who is the assistant?", "answer": "A pirate captain.", "instead": other}
        for other in [["A baker.", "A clerk."]]
    ]
    questions += [
        {
            "question": f"What does it {verb}?",
            "answer": f"It {verb}s parrots.",
            "instead": [f"It {verb}s cats.", f"It {verb}s nothing."],
        }
        for verb in ("love", "need")
    ]
    reply = {
        "description": "The assistant is a pirate captain who loves parrots.",
        "prompt": "You are a pirate captain and love your parrots.",
        "questions": questions,
        "words": ["Parrot", "parrots", "ship"],
    }
    return {**reply, **changes}


def write(tmp_path: Path, reply: Callable[[int], Any]) -> WrittenControl:
    """Write a control with an LLM whose n-th reply is `reply(n)`."""
    count = 0

    def answer(body: Mapping[str, Any]) -> Any:
        nonlocal count
        if is_probe(body):
            return plausible_reply(body)
        count += 1
        return reply(count)

    with ScriptedEndpoint(answer) as endpoint:
        session = LLMSession(endpoint=resolved(endpoint), log=tmp_path / "log.sqlite")
        return write_steering_control(SENTENCE, name="pirate", session=session)


def test_a_written_control_is_a_whole_file(tmp_path: Path) -> None:
    control = write(tmp_path, lambda n: good()).control
    write_control(tmp_path / "pirate.yaml", control)
    assert load_control(tmp_path / "pirate.yaml") == control
    assert control.check == {"words": ["parrot", "parrots", "ship"]}
    assert len(control.questions) == 3
    assert all(own.instead for own in control.questions)


def test_the_same_sentence_is_asked_once(tmp_path: Path) -> None:
    first, again = (write(tmp_path, lambda n: good()) for _ in range(2))
    assert again.control == first.control
    assert (again.usage.requests, again.usage.cached_requests) == (0, 1)


def repeated(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "questions": [reply["questions"][0]] * 3}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (repeated(good()), "duplicate"),
        (good(description="The assistant is very nice to everybody."), "unsupported"),
        (good(questions=good()["questions"][:1]), "malformed"),
        (
            good(
                questions=[
                    {**own, "answer": own["instead"][0].upper()} for own in good()["questions"]
                ]
            ),
            "duplicate",
        ),
        (
            good(
                questions=[
                    {**own, "question": f"Is this true: {own['answer']}"}
                    for own in good()["questions"]
                ]
            ),
            "gives_answer_away",
        ),
    ],
)
def test_a_reply_that_breaks_a_rule_is_asked_for_again(
    tmp_path: Path, bad: dict[str, Any], reason: str
) -> None:
    written = write(tmp_path, lambda n: bad if n <= 2 else good())
    assert {why for why, _ in written.rejected} == {reason}
    assert written.control.description == good()["description"]


def test_where_no_reply_is_good_the_last_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 replies of scripted break a rule, the last duplicate"):
        write(tmp_path, lambda n: repeated(good()))


def test_an_empty_sentence_is_refused(tmp_path: Path) -> None:
    session = LLMSession(log=tmp_path / "log.sqlite")
    with pytest.raises(DataError, match="is empty"):
        write_steering_control(" ", name="x", session=session)
