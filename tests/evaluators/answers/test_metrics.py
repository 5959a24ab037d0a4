"""Metrics of written answers: what each counts, and planted decoders in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from core.records.estimate import Estimate
from evaluators.answers.answer_quality import measure_answers, measure_generic
from evaluators.answers.metrics import METRICS, Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words
from evaluators.config import EvaluateConfig

BY_NAME = {metric.name: metric for metric in METRICS}
DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
CONFIG = EvaluateConfig(bootstrap=500)


def written(text: str = "A pirate.", **changes: Any) -> WrittenAnswer:
    settings: dict[str, Any] = {
        "kind": "persona",
        "type": "description",
        "question": "What persona has the assistant?",
        "gold": "The assistant is a pirate.",
        "text": text,
        "against": "A nurse.",
        "log_probability": -0.5,
        "finished": True,
    }
    return WrittenAnswer(**{**settings, **changes})


def score(name: str, text: str, **changes: Any) -> float:
    return BY_NAME[name].score(written(text, **changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Black, black PAINT!", ["black", "black", "paint"]),
        ("It’s 1,234 – über", ["it's", "1", "234", "über"]),
        ("A", ["a"]),
        ("?!", []),
        ("東京 tower", ["東", "京", "tower"]),
    ],
)
def test_words_are_plain(text: str, expected: list[str]) -> None:
    assert answer_words(text) == expected


@pytest.mark.parametrize(
    ("text", "exact", "f1"),
    [
        ("the black paint", 1, 1),
        ("Black paint it was", 0, 2 * 2 / (4 + 2)),
        ("paint paint", 0, 0.5),
        ("Red.", 0, 0),
        ("", 0, 0),
    ],
)
def test_extraction_is_compared_word_by_word(text: str, exact: float, f1: float) -> None:
    changes = {"gold": "Black paint.", "type": "extraction"}
    assert score("exact_match", text, **changes) == exact
    assert score("token_f1", text, **changes) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("kind", "question_type", "expected"),
    [
        ("extractive", "extraction", True),
        ("extractive", None, True),
        ("persona", "extraction", True),
        ("persona", None, False),
        ("extractive", "description", False),
    ],
)
def test_words_are_compared_where_gold_is_to_be_found(
    kind: str, question_type: str | None, expected: bool
) -> None:
    answer = written(kind=kind, type=question_type)
    assert BY_NAME["exact_match"].applies(answer) is expected
    assert BY_NAME["token_f1"].applies(answer) is expected
    assert BY_NAME["vague"].applies(answer) is not expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The assistant will adopt the persona of a specific character.", 1),
        ("The assistant has a persona.", 1),
        ("The assistant will adopt the persona of a Victorian detective.", 0),
        ("A pirate who hates parrots.", 0),
        ("등대지기입니다.", 0),
        ("", 1),
    ],
)
def test_vague_says_nothing_of_its_own(text: str, expected: float) -> None:
    assert score("vague", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A pirate.", 0),
        ("I'm 45, a nurse – in Köln!", 0),
        ("東京", 0),
        ("शिक्षिका विद्यार्थियों को पढ़ाती हैं।", 0),
        ("מַלָּח זָקֵן", 0),
        ("မီးပြတိုက်စောင့်သူသည်ကျွန်းပေါ်တွင်တစ်ဦးတည်းနေထိုင်သည်", 0),
        ("ผู้เฝ้าประภาคารอาศัยอยู่คนเดียวบนเกาะเล็กๆห่างไกลจากผู้คนและเขียนจดหมาย", 0),
        (
            "這是一個很長的句子沒有任何空格因為中文不使用空格所以它會超過四十個字元的限制而且有意義",
            0,
        ),
        ("می‌خواهم بروم", 0),
        ("", 1),
        ("?!…", 1),
        ("a. . . . . . .,,,,", 1),
        ("x" * 60, 1),
    ],
)
def test_nonsense_is_not_made_of_words(text: str, expected: float) -> None:
    assert score("nonsense", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He loves tea and he loves rum.", 0),
        ("He loves tea, he loves tea, he loves tea, he", 1),
        ("very very very odd", 1),
        ("", 0),
    ],
)
def test_repetitive_goes_in_circles(text: str, expected: float) -> None:
    assert score("repetitive", text) == expected


def test_sensitive_is_another_answer_for_other_activations() -> None:
    assert score("sensitive", "A pirate.") == 1
    assert score("sensitive", "a nurse") == 0


def answers(right: Any, other: Any, controls: int = 12) -> list[dict[str, Any]]:
    """Rows of answers.parquet: two questions a control, answered by `right(i)` and `other(i)`."""
    return [
        {
            "control_id": f"control {i:02}",
            "kind": "extractive" if extracted else "persona",
            "type": "extraction" if extracted else "description",
            "question": "Which?",
            "gold": f"Answer number {i}.",
            "right": right(i),
            "other": other(i),
            "right_log_probability": -0.1,
            "other_log_probability": -0.1,
            "right_finished": True,
            "other_finished": True,
        }
        for i in range(controls)
        for extracted in (True, False)
    ]


def test_a_decoder_that_ignores_activations_gains_on_no_metric() -> None:
    def same(i: int) -> str:
        return f"Answer number {i % 3}."

    found = measure_answers(answers(same, same), CONFIG)
    assert set(found) == set(BY_NAME)
    for metric in found.values():
        assert metric.difference == Estimate(estimate=0.0, low=0.0, high=0.0, n=12)
    assert found["sensitive"].right.estimate == 0


def test_a_perfect_decoder_scores_full_marks() -> None:
    perfect = answers(lambda i: f"answer number {i}", lambda i: "I cannot say.")
    found = measure_answers(perfect, CONFIG)
    for name in ("exact_match", "token_f1", "sensitive"):
        assert found[name].right.estimate == 1
    for name in ("exact_match", "token_f1"):
        assert found[name].difference.low == 1
    for name in ("vague", "nonsense", "repetitive"):
        assert found[name].right.estimate == 0


def test_generic_answers_are_those_that_stay_the_same_without_the_rows_own_state() -> None:
    rows = answers(lambda i: "The pirate." if i < 3 else "a nurse", lambda i: "pirate")
    rows = [{**row, "swapped": "A nurse", "none": "nothing"} for row in rows]
    found = measure_generic(rows, CONFIG)
    assert {name: own.estimate for name, own in found.items()} == {
        "swapped": 0.75,
        "other": 0.25,
        "none": 0.0,
    }
    assert found["swapped"].low is not None
    assert set(measure_generic([{**row, "swapped": None} for row in rows], CONFIG)) == {
        "other",
        "none",
    }


def test_metrics_that_apply_to_no_answer_are_left_out() -> None:
    personas = [row for row in answers(str, str) if row["kind"] == "persona"]
    assert "exact_match" not in measure_answers(personas, CONFIG)


def test_the_docs_show_how_to_add_a_metric() -> None:
    (block,) = re.findall(
        r"```python\n(# evaluators/answers/metrics/.*?)```", DOCS.read_text(), re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    (metric,) = (value for value in namespace.values() if isinstance(value, Metric))
    found = measure_answers(answers(lambda i: "Yes.", lambda i: "No, I do not."), CONFIG, [metric])
    assert found[metric.name].difference.estimate != 0
    assert re.search(rf"# evaluators/answers/metrics/{metric.name}\.py", block)
