import json
from typing import Any

import pytest

from generators.llm.chat.reply import Outcome, read_reply
from generators.llm.endpoint.prices import TokenCounts

MOST = TokenCounts(prompt=100, completion=40)


def read(raw: str) -> Outcome | None:
    return read_reply("k", raw, most=MOST)


def reply(content: str | None, finish: str = "stop", **message: Any) -> str:
    choice = {"message": {"content": content} | message, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (reply('{"a": 1}'), "answer"),
        (reply('{"a": ', "length"), "cut_off"),
        (reply(None, refusal="I will not."), "refusal"),
        (reply("", "content_filter"), "filtered"),
        (reply(" \n"), "empty"),
        (reply(None), "empty"),
    ],
)
def test_only_a_whole_reply_is_an_answer(raw: str, status: str) -> None:
    outcome = read(raw)
    assert outcome is not None
    assert outcome.status == status
    assert outcome.tokens == TokenCounts(prompt=5, completion=2)


def parts(*content: Any) -> str:
    return json.dumps({"choices": [{"message": {"content": list(content)}}]})


@pytest.mark.parametrize(
    "raw",
    [
        parts("{", {"text": '"a": 1}'}),
        parts({"type": "text", "text": {"value": '{"a": 1}'}}),
        parts({"type": "reasoning", "text": "{no}"}, {"type": "output_text", "text": '{"a": 1}'}),
        json.dumps({"choices": [{"message": {"content": {"type": "text", "text": '{"a": 1}'}}}]}),
        json.dumps({"choices": [{"message": {"content": {"a": 1}}}]}),
    ],
)
def test_a_content_is_read_in_every_form(raw: str) -> None:
    outcome = read(raw)
    assert outcome is not None
    assert (outcome.status, outcome.content) == ("answer", '{"a": 1}')


def test_a_reply_of_no_text_that_was_cut_was_cut_within_its_thought() -> None:
    for raw in (reply(None, "length"), reply("<think>Well", "MAX_TOKENS")):
        outcome = read(raw)
        assert outcome is not None
        assert outcome.detail.startswith("the reply was cut within its thought")


@pytest.mark.parametrize(
    "body",
    [
        {"candidates": [], "promptFeedback": {"blockReason": "SAFETY"}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "MODEL_ARMOR"}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "content_policy_violation"}]},
    ],
)
def test_what_a_filter_holds_back_is_told_in_every_word(body: dict[str, Any]) -> None:
    outcome = read(json.dumps(body))
    assert outcome is not None
    assert outcome.status == "filtered"


@pytest.mark.parametrize(
    "raw", ["", "<html>", "[]", '{"choices": []}', '{"choices": [{}]}', "null"]
)
def test_what_is_no_chat_completion_is_none(raw: str) -> None:
    assert read(raw) is None


@pytest.mark.parametrize(
    ("told", "ids"), [([5, 6], (5, 6)), ([], ()), (None, None), ([5, "6"], None), ([True], None)]
)
def test_token_ids_of_a_continued_prompt_are_read_and_its_text_stays_whole(
    told: Any, ids: tuple[int, ...] | None
) -> None:
    choice = {"text": '<think>a</think> {"b": 1}\n', "finish_reason": "length", "token_ids": told}
    outcome = read(json.dumps({"choices": [choice]}))
    assert outcome is not None
    assert (outcome.status, outcome.content, outcome.token_ids) == ("cut_off", choice["text"], ids)


def test_tokens_that_stand_in_the_total_alone_are_the_replys() -> None:
    usage = {"prompt_tokens": 10, "total_tokens": 74}  # Gemini's, of a thought without an answer
    outcome = read(json.dumps({**json.loads(reply("")), "usage": usage}))
    assert outcome is not None
    assert (outcome.tokens, outcome.estimated) == (TokenCounts(prompt=10, completion=64), False)


def test_tokens_that_a_cache_had_are_among_the_prompts() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 100}
    outcome = read(json.dumps({**json.loads(reply("{}")), "usage": usage}))
    assert outcome is not None
    assert outcome.tokens == TokenCounts(prompt=105, completion=2, cached=100)
