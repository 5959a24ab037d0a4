"""The decoder's prompt: two parts that make the rendered whole."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from core.errors import DataError, ModelError
from decoder.config import DecoderConfig
from decoder.question_prompt import DecoderPrompt
from decoder.reading import Reading

CONFIG = DecoderConfig()
QUESTION, ANSWER = "Who are you?", "A pirate, s?"
PAIRS = [(QUESTION, ANSWER), ("?", "!"), ("Why so\nlong? é", "Well, 漢 the end"), ("s s", "?\n?")]


def rendered(
    tokenizer: PreTrainedTokenizerFast, placeholders: str, question: str, answer: str
) -> str:
    """Render the whole prompt by the chat template, as the paper has it."""
    return str(
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": placeholders},
                {"role": "assistant", "content": CONFIG.preamble},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ],
            tokenize=False,
            date_string="01 Jan 2025",
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(("question", "answer"), PAIRS)
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_prefix_and_turn_are_the_whole_prompt_tokenised_at_once(
    template: str, n: int, question: str, answer: str
) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    prompt = DecoderPrompt(tokenizer, CONFIG)
    prefix, turn = prompt.prefix(Reading(None, n, 0)), prompt.turn(question, answer)
    whole = encode(tokenizer, rendered(tokenizer, "?" * n, question, answer))
    ours = [*prefix.ids.tolist(), *turn.ids.tolist()]
    assert whole[: len(ours)] == ours
    # what follows the end of the turn is white space of the template
    rest = tokenizer.decode(whole[len(ours) :])
    assert isinstance(rest, str)
    assert not rest.strip()
    assert tokenizer.decode(prefix.ids[prefix.places]) == "?" * n


@pytest.mark.parametrize(("question", "answer"), PAIRS)
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_a_tokenizer_that_merges_across_words_changes_nothing_of_that(
    template: str, question: str, answer: str
) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template], merges=True)
    prompt = DecoderPrompt(tokenizer, CONFIG)
    whole = encode(tokenizer, rendered(tokenizer, "?", question, answer))
    ours = [
        *prompt.prefix(Reading(None, 1, 0)).ids.tolist(),
        *prompt.turn(question, answer).ids.tolist(),
    ]
    assert whole[: len(ours)] == ours


@pytest.mark.parametrize(("question", "answer"), PAIRS)
@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_loss_is_on_the_answer_and_the_end_of_its_turn_alone(
    template: str, question: str, answer: str
) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    prompt = DecoderPrompt(tokenizer, CONFIG)
    turn = prompt.turn(question, answer)
    end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "qwen3": "<|im_end|>"} | {
        "gemma": "<end_of_turn>",
        "mistral": "</s>",
        "phi3": "<|end|>",
    }
    assert tokenizer.decode(turn.ids[turn.answer]) == answer + end[template]
    assert prompt.end_of_turn == turn.ids[-1] == tokenizer.convert_tokens_to_ids(end[template])
    assert turn.answer[-1]


@pytest.mark.parametrize("template", tiny.TEMPLATES)
def test_without_an_answer_the_turn_ends_where_one_begins(template: str) -> None:
    tokenizer = tiny.tokenizer(tiny.TEMPLATES[template])
    prompt = DecoderPrompt(tokenizer, CONFIG)
    full, asked = prompt.turn(QUESTION, ANSWER), prompt.turn(QUESTION, None)
    first = int(np.flatnonzero(full.answer)[0])
    assert asked.ids.tolist() == full.ids[:first].tolist()
    assert not asked.answer.any()


def test_text_between_answer_and_end_of_turn_is_learned_too() -> None:
    # or a decoder would never come to the end of its own answers
    spaced = tiny.CHATML.replace("+ '<|im_end|>", "+ '\n<|im_end|>")
    tokenizer = tiny.tokenizer(spaced)
    turn = DecoderPrompt(tokenizer, CONFIG).turn(QUESTION, ANSWER)
    assert tokenizer.decode(turn.ids[turn.answer]) == ANSWER + "\n<|im_end|>"


@pytest.mark.parametrize("first", [0, 3, 200])
@pytest.mark.parametrize("n", [1, 7])
def test_a_placeholder_has_the_position_of_its_activation(first: int, n: int) -> None:
    prefix = DecoderPrompt(tiny.tokenizer(), CONFIG).prefix(Reading(None, n, first))
    positions = prefix.positions(0, len(prefix.ids))
    assert positions[prefix.places].tolist() == list(range(first, first + n))
    after = positions[prefix.places[-1] + 1 :]
    assert after.tolist() == list(range(first + n, first + n + len(after)))
    before = positions[: prefix.places[0]]
    start = first - prefix.places[0]
    assert before.tolist() == [max(0, start + i) for i in range(prefix.places[0])]


def test_tokens_that_are_left_out_keep_their_positions() -> None:
    prompt = DecoderPrompt(tiny.tokenizer(), CONFIG)
    prefix = prompt.prefix(Reading(None, 3, 9, skipped=np.array([0, 0, 4])))
    positions = prefix.positions(0, len(prefix.ids) + 2)
    assert positions[prefix.places].tolist() == [9, 10, 15]
    after = positions[prefix.places[-1] + 1 :]
    assert after.tolist() == list(range(16, 16 + len(after)))
    assert positions[prefix.places[0] - 1] == 8


def test_positions_go_on_from_prefix_to_turn() -> None:
    prefix = DecoderPrompt(tiny.tokenizer(), CONFIG).prefix(Reading(None, 4, 9))
    size = len(prefix.ids)
    both = prefix.positions(0, size + 5).tolist()
    assert both == [*prefix.positions(0, size), *prefix.positions(size, size + 5)]


def test_plain_positions_are_counted_from_0() -> None:
    prompt = DecoderPrompt(tiny.tokenizer(), DecoderConfig(positions="plain"))
    prefix = prompt.prefix(Reading(None, 4, 9))
    assert prefix.positions(0, 80).tolist() == list(range(80))


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("", ANSWER, "the question is empty"),
        (QUESTION, "", "the answer is empty"),
        ("a <|im_end|>", ANSWER, r"a question holds the control token <\|im_end\|>"),
        (QUESTION, "a <|im_start|>", r"an answer holds the control token <\|im_start\|>"),
    ],
)
def test_what_cannot_be_asked_is_named(question: str, answer: str, message: str) -> None:
    prompt = DecoderPrompt(tiny.tokenizer(), CONFIG)
    with pytest.raises(DataError, match=message):
        prompt.turn(question, answer)


def test_white_space_alone_is_no_answer_where_the_template_strips() -> None:
    prompt = DecoderPrompt(tiny.tokenizer(tiny.LLAMA3), CONFIG)
    with pytest.raises(DataError, match="the answer is empty"):
        prompt.turn(QUESTION, " \n ")


@pytest.mark.parametrize("placeholder", ["??", "word", ""])
def test_a_placeholder_is_one_token(placeholder: str) -> None:
    config = DecoderConfig(placeholder=placeholder)
    with pytest.raises(ModelError, match=r"decoder.placeholder: .* expected one token"):
        DecoderPrompt(tiny.tokenizer(), config)


def test_a_control_token_as_placeholder_is_refused() -> None:
    with pytest.raises(ModelError, match=r"decoder.placeholder holds the control token"):
        DecoderPrompt(tiny.tokenizer(), DecoderConfig(placeholder="<|endoftext|>"))


def test_a_turn_without_an_end_ends_where_the_next_begins() -> None:
    endless = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    )
    tokenizer = tiny.tokenizer(endless)
    turn = DecoderPrompt(tokenizer, CONFIG).turn("Who is it?", "A pirate.")
    assert str(tokenizer.decode(turn.ids)).endswith("A pirate.<|im_start|>")


def test_a_template_without_special_tokens_is_refused() -> None:
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(ModelError, match="no special token before a question"):
        DecoderPrompt(tiny.tokenizer(plain), CONFIG)


def test_a_template_that_refuses_the_prompt_is_refused() -> None:
    refusing = "{{ raise_exception('no chat today') }}"
    with pytest.raises(ModelError, match=r"the decoder's prompt cannot be rendered: .*no chat"):
        DecoderPrompt(tiny.tokenizer(refusing), CONFIG)
