"""Credentials are cut out of addresses, command lines and configs, and nothing else is."""

from __future__ import annotations

import pytest

from core.text.redact import (
    holds_credential,
    places_of_credentials,
    redact,
    redact_override,
    redact_value,
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://user:secret@host/v1?key=secret#secret", "https://host/v1"),
        ("https://secret@host:8000/v1", "https://host:8000/v1"),
        ("https://user:sec/ret@host/v1", "https://host/v1"),
        ("https://user:p@ss@host/v1", "https://host/v1"),
        ("https://host:8000/v1", "https://host:8000/v1"),
        ("http://[::1]:8000/a@b", "http://[::1]:8000/a@b"),
        ("postgresql+asyncpg://me:secret@db/prefect", "postgresql+asyncpg://db/prefect"),
        (
            "run c.yaml --set 'e.base_url=https://me:secret@host/v1?key=secret' --until dump",
            "run c.yaml --set 'e.base_url=https://host/v1' --until dump",
        ),
        ("https://user:sec'ret@host/v1?key=secret", "https://host/v1"),
        ("https://user:s^cr|t@host/v1", "https://host/v1"),
        ("https://one/v1,https://user:secret@two/v1", "https://one/v1,https://two/v1"),
        ("with sk-proj-4fQ9xK27Lm at hand", "with … at hand"),
        ("Authorization: Bearer 4fQ9xK27", "Authorization: Bearer …"),
        ("api_key:hunter22", "api_key:…"),
        ("hf-internal-testing/tiny-random-2", "hf-internal-testing/tiny-random-2"),
        (
            "generate.endpoint.api_key_env: expected a name",
            "generate.endpoint.api_key_env: expected a name",
        ),
        ("no proxy (Invalid port: 'hunter2')", "no proxy (Invalid port: …)"),
        (
            "Port could not be cast to integer value as 'pa'",
            "Port could not be cast to integer value as …",
        ),
        ("sk-learn-of-old", "sk-learn-of-old"),
        ("dump/3fa9c1aabbccddee", "dump/3fa9c1aabbccddee"),
        ("org/name@main", "org/name@main"),
        ("/a/folder", "/a/folder"),
    ],
)
def test_a_text_loses_the_credentials_of_its_addresses(text: str, kept: str) -> None:
    assert redact(text) == kept


@pytest.mark.parametrize(
    "name", ["password", "Authorization", "x-api-key", "api_key", "hub_token", "client_secret"]
)
def test_a_value_under_the_name_of_a_secret_is_hidden(name: str) -> None:
    assert redact_value({"headers": {name: "abc"}}) == {"headers": {name: "…"}}
    assert redact_value({name: None}) == {name: None}


@pytest.mark.parametrize("name", ["api_key_env", "max_tokens", "tokens", "keys", "batch_tokens"])
def test_a_value_that_is_no_secret_stays(name: str) -> None:
    assert redact_value({name: "OPENAI_API_KEY"}) == {name: "OPENAI_API_KEY"}


def test_an_address_without_a_scheme_loses_its_password() -> None:
    for address in ("me:secret@host:8000/v1", "//me:secret@host:8000/v1"):
        assert redact_value({"base_url": address}) == {"base_url": "host:8000/v1"}


def test_an_address_is_cut_whole_where_it_is_known_to_be_one() -> None:
    assert redact_value({"base_url": 'https://me:sec"ret@host/v1'}) == {
        "base_url": "https://host/v1"
    }


def test_lists_are_walked() -> None:
    assert redact_value({"all": [{"url": "http://a:b@c/"}, 3]}) == {
        "all": [{"url": "http://c/"}, 3]
    }


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("train.lora.rank=8", "train.lora.rank=8"),
        ("train.batch_tokens=3", "train.batch_tokens=3"),
        ("generate.endpoint.api_key_env=MY2_KEY", "generate.endpoint.api_key_env=MY2_KEY"),
        ("generate.endpoint.api_key_env=null", "generate.endpoint.api_key_env=null"),
        ("generate.endpoint.api_key_env=AKIA0123456789ABCDEF", "generate.endpoint.api_key_env=…"),
        ("generate.endpoint.extra_headers.x=GATEWAY", "generate.endpoint.extra_headers.x=GATEWAY"),
        ("generate.endpoint.extra_headers.x=hush", "generate.endpoint.extra_headers.x=…"),
        ("generate.endpoint.base_url=me:hush@host/v1", "generate.endpoint.base_url=host/v1"),
        (
            "generate.endpoint.headers.Authorization=hush",
            "generate.endpoint.headers.Authorization=…",
        ),
        ("generate.endpoint={model: m, api_key: hush}", "generate.endpoint=…"),
        ("sk-proj-4fQ9xK27Lm", "…"),
    ],
)
def test_an_override_is_shown_without_its_credentials(override: str, shown: str) -> None:
    assert redact_override(override) == shown


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ({"user": {"accessToken": "hush-77"}}, True),
        ({"auth": ["Bearer 4fQ9xK27"]}, True),
        ({"callback": "https://me:hush@host/done"}, True),
        ({"password": 123456}, True),
        ({"sk-proj-4fQ9xK27Lm": 1}, True),
        ({"chat_template_kwargs": {"enable_thinking": False, "eos_token": "<|im_end|>"}}, False),
        ({"stop": ["###"], "metadata": {"user": "me"}, "max_tokens": 12345678}, False),
    ],
)
def test_a_credential_is_known_by_its_name_or_form(value: object, holds: bool) -> None:
    assert holds_credential(value) is holds


def test_keys_are_found_wherever_they_stand_but_in_addresses() -> None:
    key = "sk-proj-4fQ9xK27Lm"
    found = {"a": {"revision": key, "base_url": f"https://h/v1?key={key}"}, "b": ["x", key]}
    found |= {"c": "https://me:hush@hub/model", "d": "https://hub/model@main"}
    assert list(places_of_credentials(found)) == ["a.revision", "b", "c"]
    assert redact_value({"base_url": f"https://host/{key}/v1"}) == {"base_url": "https://host/…/v1"}
