import itertools
from random import Random

import pytest

from core.errors import ConfigError
from generators.kinds import KINDS, get_kind, written_kinds
from generators.kinds.base import WrittenKind, sentence
from generators.llm.prompt_files import PromptFiles
from generators.making.config import QuestionsConfig
from generators.making.controls import slots
from generators.making.questions import questions_by_type

TEXTS = PromptFiles()
WRITTEN = written_kinds(KINDS)
HARD = '{braces} "quotes" {{slot}} 日本語 😀'


@pytest.mark.parametrize("kind", WRITTEN.values(), ids=WRITTEN)
def test_a_control_holds_its_seed_or_its_reply_word_for_word(kind: WrittenKind) -> None:
    prompt = TEXTS.prompt(kind.control_prompt)
    reply = dict.fromkeys(prompt.reply, HARD)
    text = kind.control(HARD, reply, Random(0))
    assert HARD in text
    assert text == kind.control(HARD, reply, Random(0))


@pytest.mark.parametrize("kind", WRITTEN.values(), ids=WRITTEN)
def test_questions_fit_their_prompts_and_never_run_out(kind: WrittenKind) -> None:
    control = "Remember this.\n\nThe first bell rang at noon. The second bell fell down."
    for question_type in kind.types:
        asks = list(itertools.islice(kind.questions(question_type, control, TEXTS, Random(0)), 30))
        assert len(asks) == 30
        for ask in asks:
            assert ask.prompt in kind.question_prompts
            prompt = TEXTS.prompt(ask.prompt)
            prompt.messages(ask.values)
            read = ask.read(dict.fromkeys(prompt.reply, "some words"))
            assert len(read) == ask.rows
            assert all(answered.question and answered.answer for answered in read)


def test_slots_take_the_categories_by_turns_and_do_not_depend_on_how_many_are_taken() -> None:
    seeds = {"a": ["a1", "a2"], "b": ["b1", "b2", "b3"]}
    few = list(itertools.islice(slots(seeds, 0), 4))
    many = list(itertools.islice(slots(seeds, 0), 12))
    assert many[:4] == few
    assert {slot.category for slot in few[:2]} == {"a", "b"}
    again = [slot for slot in many if slot.idea == "a1"]
    assert [slot.lap for slot in again] == [0, 1, 2]


@pytest.mark.parametrize(
    ("per_control", "types", "expected"),
    [
        (5, ("description", "prediction"), {"description": 3, "prediction": 2}),
        (4, ("prediction", "extraction"), {"prediction": 4}),
        (1, ("description", "prediction"), {"description": 1}),
    ],
)
def test_questions_are_divided_among_the_types_of_a_kind(
    per_control: int, types: tuple[str, ...], expected: dict[str, int]
) -> None:
    config = QuestionsConfig.model_validate({"per_control": per_control, "types": types})
    assert questions_by_type(get_kind("persona"), config) == expected


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown kind 'gaol' \(did you mean 'goal'"):
        get_kind("gaol")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("it walks", "It walks."), ("It walks.", "It walks."), ("Why?", "Why?"), ("élan", "Élan.")],
)
def test_a_sentence_has_a_capital_and_an_end(text: str, expected: str) -> None:
    assert sentence(text) == expected
