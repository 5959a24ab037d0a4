import json
from typing import Any

import pytest

from generators.llm.chat.reply import Outcome, Status
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.rules.duplicates import Duplicates
from generators.rules.text import (
    find_control_leak,
    find_copied_words,
    find_repetition,
    find_unsupported,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
}


def answer(content: str, status: Status = "answer") -> Outcome:
    return Outcome(key="k", status=status, content=content, detail="why")


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (answer('{"a": "b'), "malformed"),
        (answer('["a"]'), "malformed"),
        (answer('{"b": "c"}'), "malformed"),
        (answer('{"a": 3}'), "malformed"),
        (answer('{"a": "  "}'), "empty"),
        (answer('{"a": "b"}', "cut_off"), "cut_off"),
        (answer('{"a": "b"}', "refusal"), "refusal"),
        (answer("", "failed"), "failed"),
    ],
)
def test_a_reply_that_is_no_object_of_the_schema_has_its_reason(
    outcome: Outcome, reason: str
) -> None:
    fault = parse_reply(outcome, SCHEMA)
    assert isinstance(fault, Rejection)
    assert fault.reason == reason


def test_a_good_reply_is_read_with_its_white_space_in_order() -> None:
    assert parse_reply(answer(json.dumps({"a": " b \n c ", "extra": 1})), SCHEMA) == {"a": "b c"}


def test_repetition_is_seen_in_long_and_in_short_texts() -> None:
    assert find_repetition(
        "He is his best friend, he is his best friend, he is his best friend", 0.6
    )
    assert find_repetition("sings a solo solo solo solo", 0.6)
    assert find_repetition("The monk copies books by candle light and never sleeps.", 0.6) is None
    assert find_repetition("Yes.", 0.6) is None


FEW_SHOT = [{"habit": "sneezes between sentences and sells paper roses"}]


def test_words_taken_from_an_example_are_seen_unless_they_were_asked_for() -> None:
    text = "This monk sells paper roses to travellers"
    assert find_copied_words(text, FEW_SHOT, "a monk", 3) == Rejection(
        "copied_answer", "from a few-shot example: sell paper ros"
    )
    assert find_copied_words(text, FEW_SHOT, "someone who sells paper roses", 3) is None
    assert find_copied_words("This monk folds paper roses", FEW_SHOT, "a monk", 3) is None


def test_a_stimulus_that_names_the_control_gives_it_away() -> None:
    control = "Speak as a beekeeper who knows every hive, and who hums in winter."
    label = "persona-farming-a-beekeeper-who-knows-every-hive"
    assert find_control_leak("How do I keep a hive?", control, label, 2) is not None
    assert find_control_leak("Do you hum in winter?", control, label, 2) is not None
    assert find_control_leak("What can I cook in winter?", control, label, 2) is None


def test_an_answer_without_a_word_of_its_control_is_unsupported() -> None:
    control = "Speak as a beekeeper who hums."
    assert find_unsupported("The assistant would answer the question.", control) is not None
    assert find_unsupported("It would hum a tune.", control) is None
    plain = "Whatever I ask, answer only in questions."
    assert find_unsupported("It would reply with a question.", plain) is None
    assert find_unsupported("The assistant would answer.", plain) is not None


def test_near_duplicates_are_found_over_case_and_marks_and_others_are_not() -> None:
    seen = Duplicates(0.7)
    seen.add("The lighthouse keeper counts every wave that breaks below the tower.")
    same = seen.find("the lighthouse keeper counts every wave that breaks below the towers")
    assert same is not None
    assert same.reason == "near_duplicate"
    assert seen.find("The lighthouse keeper sleeps by day and reads old letters.") is None


@pytest.mark.parametrize("text", ["", "日本語のテキスト", "😀", "a" * 20_000])
def test_any_script_and_length_can_be_compared(text: str) -> None:
    seen = Duplicates(0.7)
    seen.add(text)
    assert seen.find(text) is not None
