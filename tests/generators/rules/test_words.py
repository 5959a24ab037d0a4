"""Words of any script: one splitter for rules and metrics."""

from __future__ import annotations

import pytest

from generators.quality.answerability import token_f1
from generators.rules.text import (
    content_words,
    find_control_leak,
    find_repetition,
    find_unsupported,
)
from generators.rules.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It’s a ferry-man's boat, No. 7!", ["it's", "a", "ferry", "man's", "boat", "no", "7"]),
        ("वह हिन्दी बोलता है।", ["वह", "हिन्दी", "बोलता", "है"]),
        ("يُحِبُّ البَحْـــرَ", ["يحب", "البحر"]),
        ("שָׁלוֹם", ["שלום"]),
        ("등대는", ["등", "대", "는"]),
        ("人々", ["人", "々"]),
        ("don‘t won´t", ["don't", "won't"]),
        ("١٢ १२", ["12", "12"]),
        ("İzmir", ["izmir"]),
        ("tie\u0302\u0301ng", ["tiếng"]),
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
        ("등대지기입니다", "등대지기", "의사만"),
        ("מַלָּח זָקֵן", "מלח זקן", "רופא צעיר"),
        ("بَحّار عجوز", "بحار عجوز", "طبيبة شابة"),
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


@pytest.mark.parametrize(
    ("control", "stimulus", "tells"),
    [
        ("灯台守として話してください。", "スープの作り方を教えてください。", False),
        ("请扮演守塔人，请告诉我你的想法。", "请告诉我怎么做汤。", False),
        ("등대지기로서 말하세요. 당신은 혼자 삽니다.", "수프 만드는 방법을 알려주세요.", False),
        ("등대지기로서 말하세요.", "등대지기의 하루는 어떤가요?", True),
        ("คุณเป็นคนเฝ้าประภาคาร", "ช่วยบอกวิธีทำซุปหน่อย", False),
    ],
)
def test_what_any_request_says_gives_no_control_away(
    control: str, stimulus: str, tells: bool
) -> None:
    assert (find_control_leak(stimulus, control, "persona", 2) is not None) is tells


@pytest.mark.parametrize(
    ("control", "answer", "supported"),
    [
        ("등대지기로서 말하세요.", "그는 등대지기이다.", True),
        ("등대지기로서 말하세요.", "그녀는 의사다.", False),
        ("Говори как смотритель маяка.", "Он смотрит за маяком.", True),
        ("Говори как смотритель маяка.", "Она врач в больнице.", False),
        ("تحدث كحارس منارة", "يعيش الحارس في المنارة", True),
        ("Deniz feneri bekçisi gibi konuş.", "O bir bekçidir.", True),
        ("Puhu kuin majakanvartija.", "Hän on majakanvartijana saarella.", True),
        ("דבר כמו שומר מגדלור", "הוא שומר במגדלור", True),
    ],
)
def test_an_answer_with_an_inflected_word_of_its_control_is_supported(
    control: str, answer: str, supported: bool
) -> None:
    assert (find_unsupported(answer, control) is None) is supported


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        ("毎朝海を見ています。灯台の掃除をしています。夜は星を数えています。", False),
        ("守塔人每天早上看海。守塔人下午写信。守塔人晚上数星星。守塔人喜欢安静。", False),
        ("เขาชอบประภาคาร เขาดูแลประภาคารทุกวัน และประภาคารเป็นบ้านของเขา", False),
        ("哈哈哈，他笑了。", False),
        ("他是他是他是他是他是他是", True),
        ("안녕안녕안녕안녕안녕안녕안녕", True),
    ],
)
def test_characters_that_come_again_are_no_circles_until_words_do(text: str, circles: bool) -> None:
    assert (find_repetition(text, 0.7) is not None) is circles
