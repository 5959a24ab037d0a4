"""What servers say of a field that they refuse, in their own words, and what is made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from generators.llm.chat.dialect import ChatDialect

SENT = {
    "model": "m",
    "max_tokens": 9,
    "temperature": 0.7,
    "top_p": 0.95,
    "frequency_penalty": 0.1,
    "seed": 3,
    "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
}


def said(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


def refused_by(raw: str) -> str:
    """Return what is left out, renamed or joined after a refusal; empty for nothing."""
    found = ChatDialect().adapted(SENT, raw)
    if found is None:
        return ""
    if found.limit_field != "max_tokens":
        return "max_tokens"
    return "system" if found.system_joined else found.omitted[0]


WORDS = {
    "OpenAI's o1": (said("beta-limitations: temperature, top_p and n are fixed at 1."), "top_p"),
    "Gemini's penalty": (said("Penalty is not enabled for models/gemini"), "frequency_penalty"),
    "Anthropic, thinking": (
        said("`temperature` may only be set to 1 when thinking is enabled."),
        "temperature",
    ),
    "Anthropic's range": (
        said("`top_p` must be at least 0.95 or unset when thinking is enabled."),
        "top_p",
    ),
    "Anthropic's docs": (said("Thinking isn't compatible with temperature"), "temperature"),
    "LiteLLM": (
        said("litellm.UnsupportedParamsError: x doesn't support parameters: {'seed': 1}"),
        "seed",
    ),
    "Bedrock's key": (said("Malformed input request: extraneous key [seed] is not ok"), "seed"),
    "Bedrock's topP": (
        json.dumps({"message": "This model doesn't support the topP field."}),
        "top_p",
    ),
    "a typeset quote": (json.dumps({"message": "It doesn’t support Top P."}), "top_p"),
    "xAI": (
        json.dumps({"error": "Argument not supported on this model: frequencyPenalty"}),
        "frequency_penalty",
    ),
    "Kimi": (said("invalid temperature: only 1 is allowed for this model"), "temperature"),
    "OpenRouter": (
        said("Provider returned error", metadata={"raw": said("Unsupported parameter: 'seed'.")}),
        "seed",
    ),
    "Databricks": (
        json.dumps({"message": json.dumps({"message": '"seed" is not a valid parameter'})}),
        "seed",
    ),
    "ajv": (
        json.dumps([{"message": "must NOT have additional properties", "params": {"x": "seed"}}]),
        "seed",
    ),
    "both": (said("Please specify temperature or top_p but not both."), "top_p"),
    "removed": (said("The temperature parameter has been removed."), "temperature"),
    "not defined": (said("seed: property is not defined in schema"), "seed"),
    "Ark": (said("The parameter `seed` specified in the request is not valid for it"), "seed"),
    "in Chinese": (said("不支持的参数 seed"), "seed"),
    "pydantic's roles": (
        json.dumps({"detail": [{"msg": "Input should be 'user' or 'assistant'"}]}),
        "system",
    ),
    "a role": (said("invalid message role: system"), "system"),
    "vLLM, Gemma 2": (json.dumps({"message": "System role not supported"}), "system"),
    "a Mistral template": (said("Conversation roles must alternate user/assistant/..."), "system"),
    "an older one": (said("Only user and assistant roles are supported!"), "system"),
    "o1-mini": (said("'messages[0].role' does not support 'system' with this model."), "system"),
    "Gemma at Gemini's": (said("Developer instruction is not enabled for models/gemma"), "system"),
}
OTHERS = {
    "what a model wrote": said(
        "Failed to generate JSON.", failed_generation='{"a": "an unknown temperature"}'
    ),
    "what was sent": json.dumps(
        {"detail": [{"loc": ["body", "x"], "msg": "Unexpected", "input": {"seed": 1}}]}
    ),
    "a limit": said("'max_tokens' is too large: this model's maximum context is 4096 tokens"),
    "a long system prompt": said("The system prompt has 900 tokens, at most 800 fit."),
    "a range": said("temperature: range: 0..1"),
    "a bound": said("Invalid 'temperature': above maximum value, expected <= 1, got 1.7 instead."),
    "another field": said("'reasoning_effort' does not support 'minimal'; use one of 'low'."),
    "a form": said("'response_format' of type 'json_schema' is not supported with this model."),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_refusal_is_understood_in_each_servers_words(name: str) -> None:
    raw, refused = WORDS[name]
    assert refused_by(raw) == refused


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_refusal_of_a_field_changes_nothing(name: str) -> None:
    assert refused_by(OTHERS[name]) == ""


def test_a_dialect_of_an_older_log_is_read() -> None:
    old = '{"limit_field": "max_tokens", "omitted": ["seed"]}'
    assert ChatDialect.from_json(old) == ChatDialect(omitted=("seed",))
