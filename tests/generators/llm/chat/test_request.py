import dataclasses
from typing import Any

import pytest

from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig

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
    assert REQUEST.key("m").startswith("07ae17c3dddde1a7")


def test_without_a_seed_none_is_sent_and_samples_still_differ() -> None:
    request = dataclasses.replace(REQUEST, sampling=SamplingConfig(seed=None))
    assert request.seed is None
    assert request.key("m") != dataclasses.replace(request, sample=1).key("m")


def test_samples_are_asked_with_seeds_of_their_own() -> None:
    seeds = {dataclasses.replace(REQUEST, sample=n).seed for n in range(50)}
    assert len(seeds) == 50
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("text", ["7" * 300, "🦖" * 100, "ක්‍රී" * 60])
def test_no_prompt_can_take_more_tokens_than_the_bound(text: str) -> None:
    messages = (("user", text),)
    byte_tokens = len(text.encode())  # of a tokenizer that knows none of these characters
    assert dataclasses.replace(REQUEST, messages=messages).max_usage(0).prompt >= byte_tokens
