"""Credentials are cut out of addresses, command lines and configs, and nothing else is."""

from __future__ import annotations

import pytest

from core.text.redact import redact, redact_value


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
    assert redact_value({"base_url": "me:secret@host:8000/v1"}) == {"base_url": "host:8000/v1"}


def test_an_address_is_cut_whole_where_it_is_known_to_be_one() -> None:
    assert redact_value({"base_url": 'https://me:sec"ret@host/v1'}) == {
        "base_url": "https://host/v1"
    }


def test_lists_are_walked() -> None:
    assert redact_value({"all": [{"url": "http://a:b@c/"}, 3]}) == {
        "all": [{"url": "http://c/"}, 3]
    }
