import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from core.errors import ConfigError, EndpointError
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.resolve import (
    ResolvedEndpoint,
    model_identity,
    open_endpoint,
    redact_body,
    redact_secrets,
)

SECRET = "sk-proj-0123456789abcdef"


def said(**fields: Any) -> str:
    """Word the one fault of a config."""
    with pytest.raises(ValidationError) as caught:
        EndpointConfig.model_validate({"model": "m", **fields})
    (error,) = caught.value.errors(include_url=False)
    return f"{error['loc'][0] if error['loc'] else ''}: {error['msg']}"


def resolved(base_url: str, **fields: Any) -> ResolvedEndpoint:
    config = EndpointConfig.model_validate({"model": "m", "base_url": base_url, **fields})
    with open_endpoint(config) as endpoint:
        return endpoint


@pytest.mark.parametrize(
    "base_url",
    [
        "localhost:8000/v1",
        "127.0.0.1:8000",
        "ftp://host/v1",
        "http://",
        "http://host:port/v1",
        "",
        "http://a..b/v1",
        "http://.",
        f"http://{'a' * 70}/v1",
        "http://host\\x/v1",
        "http://x\0y/v1",
        "http://host/v 1",
    ],
)
def test_an_address_that_is_none_is_named_with_its_field(base_url: str) -> None:
    assert said(base_url=base_url).startswith("base_url: Value error")
    assert "http://localhost:8000/v1" in said(base_url=base_url)


@pytest.mark.parametrize(
    ("base_url", "url", "query"),
    [
        ("http://host:8000/v1", "http://host:8000/v1", {}),
        ("http://host:8000/v1/", "http://host:8000/v1", {}),
        ("http://host/v1/chat/completions", "http://host/v1", {}),
        ("http://Host/v1/chat/completions/", "http://host/v1", {}),
        ("http://[::1]:80/v1", "http://[::1]:80/v1", {}),
        (
            "https://x.example/openai/deployments/gpt?api-version=2024-06-01",
            "https://x.example/openai/deployments/gpt",
            {"api-version": "2024-06-01"},
        ),
    ],
)
def test_addresses_are_taken_as_people_have_them(
    base_url: str, url: str, query: dict[str, str]
) -> None:
    endpoint = resolved(base_url)
    assert endpoint.url_without_query == url
    assert endpoint.query == query


def test_no_secret_of_an_address_is_shown() -> None:
    endpoint = resolved("https://me:pass-word@host/v1?key=query-secret")
    assert endpoint.address == "https://host/v1"
    assert endpoint.all_headers["Authorization"].startswith("Basic ")
    assert {"pass-word", "query-secret"} <= set(endpoint.secrets)
    assert "token-77" in resolved("https://token-77@host/v1").secrets
    spelled = resolved("https://host/v1?key=a%2Bb%20c").secrets
    assert {"a+b c", "a%2Bb%20c", "a%2Bb+c"} <= set(spelled)
    key = "sk-proj-4fQ9xK27Lm"
    assert resolved(f"https://host/{key}/v1").address == "https://host/…/v1"


@pytest.mark.parametrize(
    "around", [("", ""), ("Bearer ", ""), (":", ""), ("k=", "&x"), ("xx", "y")]
)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_struck_out_in_the_spellings_of_servers(
    around: tuple[str, str], encode: Callable[[bytes], bytes]
) -> None:
    secret = "pa/ss&4fQ9xK>27Lm?"
    endpoint = resolved(f"https://me:{quote(secret, safe='')}@host/v1")
    shown = redact_secrets(endpoint, encode(secret.join(around).encode()).decode())
    assert "[key]" in shown
    assert len(shown) <= len("[key]") + len("".join(around)) * 2 + 8
    for spelled in ("pa%2fss%264fQ9xK%3e27Lm%3f", "pa/ss&amp;4fQ9xK&gt;27Lm?"):
        assert redact_secrets(endpoint, spelled) == "[key]"


def test_what_everybody_may_know_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLE", "the lantern project")
    endpoint = resolved("https://h/v1?api-version=2024-06-01", extra_headers={"X-Title": "TITLE"})
    assert endpoint.secrets == ()


def test_a_word_for_a_key_leaves_replies_as_they_are_and_stays_out_of_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("lantern", "EMPTY", "123456"):
        monkeypatch.setenv("MY_KEY", key)
        endpoint = resolved("http://host/v1", api_key_env="MY_KEY")
        reply = f'{{"a": "the {key}", "n": 1712345678}}'
        assert redact_body(endpoint, reply) == reply
        assert redact_secrets(endpoint, f"the key {key} is wrong") == "the key [key] is wrong"


def test_an_address_with_a_password_alone_is_sent_with_it() -> None:
    endpoint = resolved("https://:pass-word@host/v1")
    assert endpoint.all_headers["Authorization"] == "Basic OnBhc3Mtd29yZA=="


def test_a_key_and_a_user_in_the_address_are_refused() -> None:
    words = said(base_url="https://me:pass-word@host/v1", api_key_env="MY_KEY")
    assert "base_url has a user or a password, and api_key_env names a key" in words
    assert "pass-word" not in words


def test_openais_address_takes_its_usual_key_where_it_is_written_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai-1")
    assert resolved("https://api.openai.com/v1").api_key == "sk-of-openai-1"
    assert resolved("https://other.example/v1").api_key == "none"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"])
def test_a_proxy_is_not_for_this_machine(host: str) -> None:
    assert resolved(f"http://{host}:8000/v1").is_local


def test_a_wrong_address_is_told_without_its_password() -> None:
    for base_url in ("me:pass-word@host/v1", "ftp://me:pass-word@host/v1"):
        assert "pass-word" not in said(base_url=base_url)


@pytest.mark.parametrize("field", ["api_key_env", "extra_headers"])
def test_a_key_that_was_pasted_is_not_repeated(field: str) -> None:
    words = said(**{field: {"x-key": SECRET} if field == "extra_headers" else SECRET})
    assert "name of an environment variable" in words
    assert SECRET not in words


def test_a_variable_that_may_be_a_key_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(EndpointError, match="MY_KEY is not set"):
        resolved("http://host/v1", api_key_env="MY_KEY")
    assert "AKIA" not in said(api_key_env="AKIA0123456789ABCDEF")


def test_headers_take_their_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "header-secret")
    endpoint = resolved("http://host/v1", extra_headers={"x-gateway": "GATEWAY_KEY"})
    assert endpoint.headers == {"x-gateway": "header-secret"}
    assert "header-secret" not in repr(endpoint)
    assert "header-secret" in endpoint.secrets


def test_fields_with_a_setting_of_their_own_are_not_set_by_the_extra_body() -> None:
    assert "temperature is not set here, but by sampling.temperature" in said(
        extra_body={"temperature": 1}
    )


def test_what_a_thinking_model_is_told_is_part_of_what_it_is() -> None:
    def identity(**fields: Any) -> str:
        return model_identity(EndpointConfig.model_validate({"model": "m", **fields}))

    assert identity() == "m"
    assert identity(revision="2") == "m@2"
    told = [
        identity(reasoning_effort="low"),
        identity(thinking_tokens=100),
        identity(extra_body={"chat_template_kwargs": {"enable_thinking": False}}),
    ]
    assert len({identity(), *told}) == 4
    assert identity(timeout_s=3, extra_headers={"x": "MY_KEY"}) == "m"


def test_an_extra_body_that_is_no_json_is_told() -> None:
    config = EndpointConfig.model_validate({"model": "m", "extra_body": {"x": float("nan")}})
    with pytest.raises(ConfigError, match="extra_body"):
        model_identity(config)
