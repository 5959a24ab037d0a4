import dataclasses
import json
from typing import Any

import pytest

from core.canonical import digest
from generators.llm.config import SamplingConfig
from generators.llm.request import Form, Request, read_reply

REQUEST = Request(
    messages=(("system", "be brief"), ("user", "hello")),
    schema={"type": "object", "properties": {"a": {"type": "string"}}},
    name="greeting",
    max_tokens=8,
    sampling=SamplingConfig(),
)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (("user", "hello"),)},
        {"schema": {"type": "object"}},
        {"max_tokens": 9},
        {"sampling": SamplingConfig(temperature=0.1)},
        {"sampling": SamplingConfig(seed=1)},
        {"sample": 1},
    ],
)
def test_all_that_decides_the_reply_is_in_the_key(change: dict[str, Any]) -> None:
    assert dataclasses.replace(REQUEST, **change).key("m") != REQUEST.key("m")
    assert REQUEST.key("m") != REQUEST.key("other")


def test_the_key_is_the_same_in_every_process() -> None:
    assert REQUEST.key("m").startswith("1656b63108b75ccf")


@pytest.mark.parametrize("form", ["schema", "json", "prompt"])
def test_the_key_is_the_digest_of_one_canonical_json(form: Form) -> None:
    text = "{a} \"b\" 'c' \\ 日本語 🙂 \u2028"
    schema = {"type": "object", "properties": {text: {"enum": [1, 0.5, None, True]}}}
    messages = (("system", text), ("user", ""))
    request = dataclasses.replace(REQUEST, messages=messages, schema=schema, sample=3, form=form)
    decides = {
        "model": text,
        "messages": messages,
        "schema": schema,
        "name": REQUEST.name,
        "max_tokens": REQUEST.max_tokens,
        "sampling": REQUEST.sampling.model_dump(),
        "sample": 3,
        **({} if form == "schema" else {"form": form}),
    }
    assert request.key(text) == digest(decides)


def test_samples_are_asked_with_seeds_of_their_own() -> None:
    seeds = {dataclasses.replace(REQUEST, sample=n).seed for n in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)


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
    outcome = read_reply("k", raw)
    assert outcome is not None
    assert outcome.status == status
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (5, 2)


@pytest.mark.parametrize(
    "raw", ["", "<html>", "[]", '{"choices": []}', '{"choices": [{}]}', "null"]
)
def test_what_is_no_chat_completion_is_none(raw: str) -> None:
    assert read_reply("k", raw) is None
