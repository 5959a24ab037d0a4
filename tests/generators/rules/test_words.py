"""Words of any script: one splitter for rules and metrics."""

from __future__ import annotations

import pytest

from generators.quality.answerability import token_f1
from generators.rules.text import content_words, find_control_leak, find_unsupported
from generators.rules.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s a ferry-man's boat, No. 7!", ["it's", "a", "ferry", "man's", "boat", "no", "7"]),
        ("वह हिन्दी बोलता है।", ["वह", "हिन्दी", "बोलता", "है"]),
        ("يُحِبُّ البَحْرَ", ["يُحِبُّ", "البَحْرَ"]),
        ("我住在海边。", ["我", "住", "在", "海", "边"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("Cafe\u0301", ["café"]),
        ("می‌خواهم", ["میخواهم"]),
        ("GPT是模型", ["gpt", "是", "模", "型"]),
    ],
)
def test_words_of_each_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("gold", "near", "far"),
    [
        ("他是一位守塔人", "他是守塔的人", "今天下雨了"),
        ("เขาเป็นคนเฝ้าประภาคาร", "คนเฝ้าประภาคาร", "ฝนตกวันนี้"),
        ("वह एक मल्लाह है", "वह मल्लाह है", "आज बारिश हुई"),
    ],
)
def test_token_f1_tells_near_answers_from_far_ones(gold: str, near: str, far: str) -> None:
    assert token_f1(near, gold) > 0.6 > 0.4 > token_f1(far, gold)


def test_an_unspaced_answer_is_supported_by_its_own_control_alone() -> None:
    control = "请扮演一位独自住在海边的守塔人。"
    assert find_unsupported("它扮演一位守塔人。", control) is None
    assert find_unsupported("它喜欢做数学题。", control) is not None


def test_a_chinese_stimulus_without_the_control_in_it_passes() -> None:
    control = "请扮演一位独自住在海边的守塔人。"
    assert find_control_leak("请问你今天吃了什么？", control, "persona", 2) is None
    assert find_control_leak("独自住在海边的守塔人晚上做什么？", control, "persona", 2)


def test_content_words_of_english_are_stemmed_as_before() -> None:
    assert content_words("The ferrymen's boats were rowing slowly") == [
        "ferrymen", "boat", "row", "slow",
    ]  # fmt: skip
