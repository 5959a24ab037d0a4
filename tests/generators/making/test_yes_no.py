"""Yes/no questions of controls that an LLM wrote: balanced, true, and within their split."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from table_rows import conversation

from core.records.tables import Conversation, QuestionType, Split
from generators.making.questions import ControlQuestion
from generators.making.yes_no import NO, YES, add_yes_no, count_yes_no
from pipelines.experiment.config import Experiment
from pipelines.steps.generate import GENERATED


def row(number: int, split: Split, kind: str = "persona") -> Conversation:
    return conversation(str(number), kind=kind, split=split)


def question(number: int, name: str, kind: QuestionType = "description") -> ControlQuestion:
    return ControlQuestion(
        question=f"{name}?",
        answer=f"It is {name} {number}.",
        type=kind,
        prompt="p",
        request="r",
    )


SPLITS: dict[Split, int] = {"train": 8, "test": 4, "validation": 1}
ROWS = [
    row(number, split)
    for number, split in enumerate(split for split, n in SPLITS.items() for _ in range(n))
]
ASKED = {
    own.control_id: [
        question(number, "who"),
        question(number, "habit"),
        question(number, "said", "prediction"),
    ]
    for number, own in enumerate(ROWS)
}


def test_each_statement_is_asked_where_it_is_true_and_where_it_is_not() -> None:
    found = add_yes_no(ASKED, ROWS, 2, seed=0)
    split_of = {own.control_id: own.split for own in ROWS}
    answers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for control, questions in found.items():
        assert questions[:3] == ASKED[control]
        own = {one.answer for one in ASKED[control]}
        for one in questions[3:]:
            assert one.type == "yes_no"
            stated = one.question.partition("“")[2].rstrip("”")
            assert one.answer == (YES if stated in own else NO)
            answers[stated].append((one.answer, split_of[control]))
    # predictions are no statements; a control alone in its split has nothing to be told apart from
    assert not any(stated.startswith("It is said") for stated in answers)
    assert len(found["c12"]) == 3
    for stated, given in answers.items():
        assert sorted(answer for answer, _ in given) == [NO, YES], stated
        assert len({split for _, split in given}) == 1
    for split in ("train", "test"):
        counts = Counter(a for given in answers.values() for a, own in given if own == split)
        assert counts[YES] == counts[NO] == SPLITS[split]


def test_an_odd_number_of_controls_is_balanced_but_for_one_statement() -> None:
    found = add_yes_no(ASKED, ROWS[:5], 1, seed=0)
    counts = Counter(
        one.answer for own in ROWS[:5] for one in found[own.control_id] if one.type == "yes_no"
    )
    assert counts == {YES: 3, NO: 2}


def test_no_share_leaves_everything_as_it_is() -> None:
    assert add_yes_no(ASKED, ROWS, count_yes_no(5, 0.0), seed=0) == ASKED


@pytest.mark.parametrize(
    ("per_control", "share", "count"), [(6, 0.34, 2), (5, 0.34, 2), (1, 0.5, 0)]
)
def test_the_share_is_of_all_questions(per_control: int, share: float, count: int) -> None:
    assert count_yes_no(per_control, share) == count


def test_without_them_the_step_has_the_key_that_it_always_had(tmp_path: Path) -> None:
    def settings(**questions: Any) -> dict[str, Any]:
        experiment = Experiment.model_validate(
            {"experiment": "own", "generate": {"questions": questions}}
        )
        return dict(GENERATED[1].config(experiment))

    assert not {"yes_no", "shared"} & settings().keys()
    assert settings(yes_no=0.34)["yes_no"] == 0.34
    assert settings(shared=True)["shared"] is True
