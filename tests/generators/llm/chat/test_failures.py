import dataclasses
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from core.errors import EndpointError, NoCreditError
from generators.llm.chat.failures import (
    RequestFailed,
    TransientError,
    describe_body,
    error_from_response,
    retry_delay_s,
)
from generators.llm.endpoint.resolve import ResolvedEndpoint

ENDPOINT = ResolvedEndpoint(
    base_url="https://me:pass-word@host.example/v1?key=query-secret",
    api_key="sk-secret-0123456789",
    model="m",
    identity="m",
    headers={"x-token": "header-secret"},
)


def error(status: int, body: Any, **headers: str) -> Exception:
    raw = body if isinstance(body, str) else json.dumps(body)
    return error_from_response(ENDPOINT, status, headers, raw)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, said("Insufficient Balance", type="unknown_error")),
        (400, said("Your credit balance is too low to access the API.")),
        (429, said("Your account is not active, please check your billing details.")),
        (429, said("You exceeded your quota.", code="insufficient_quota")),
        (403, said("You have run out of credits.")),
        (200, said("Insufficient credits. Add more credits to go on.", code=402)),
        (200, said("not enough funds")),
        (200, {"errors": [{"code": 402, "message": "x"}]}),
        (200, {"error": said("x", code="402")}),
        (200, {"detail": said("x", code=402)}),
        (200, {"statusCode": 402, "message": "x"}),
        (403, said("x", code="insufficient_user_quota")),
        (429, said("账户余额不足或无可用资源包,请充值。", code="1113")),
        (402, "Payment Required"),
        (401, said("Insufficient credits. Add more at the settings page.")),
        (403, said("Your account has been suspended due to unpaid invoices")),
        (403, said("This request requires more credits, or fewer max_tokens.")),
        (403, said("The free tier of the model has been exhausted.")),
        (403, said("You have exceeded your monthly included credits. Subscribe to go on.")),
        (429, said("You have run out of prepaid balance")),
    ],
)
def test_no_credit_is_an_error_of_its_own(status: int, body: Any) -> None:
    found = error(status, body)
    assert isinstance(found, NoCreditError)
    assert "no credit" in str(found)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, said("Rate limit reached")),
        (503, "overloaded"),
        (498, said("Flex tier capacity exceeded")),
        (529, said("Overloaded", type="overloaded_error")),
        (200, said("Rate limit exceeded: free-models-per-min.", code=429)),
        (200, said("rate_limit", code="rate_limit_exceeded")),
        (403, said("API rate limit exceeded for this organisation")),
        (500, said("ThrottlingException: Too many tokens, please wait.")),
        (429, said("You exceeded your current quota, check your plan and billing. Retry in 9s.")),
    ],
)
def test_an_overload_is_told_from_other_failures(status: int, body: Any) -> None:
    found = error(status, body)
    assert isinstance(found, TransientError)
    assert found.kind == "overloaded"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, "x"), (408, "x"), (200, said("Upstream error", code=502)), (200, said("odd"))],
)
def test_what_may_pass_is_transient(status: int, body: Any) -> None:
    assert isinstance(error(status, body), TransientError)


@pytest.mark.parametrize(
    ("status", "body", "filtered"),
    [
        (400, said("bad"), False),
        (400, said("Invalid model output: no tool. The model was found."), False),
        (400, said("This model does not support temperature; the field is not found"), False),
        (200, said("no such field", type="invalid_request_error"), False),
        (200, said("no", code="content_filter"), True),
        (501, said("not implemented"), False),
        (429, said("Request too large for m on tokens per min: Limit 10, Requested 20."), False),
        (500, said("1 validation error:\n {'loc': ('body', 'response_format', 'type')}"), False),
        (400, said("x", code="content_filter"), True),
        (400, said("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301"), True),
        (400, said("Input data may contain inappropriate content."), True),
        (
            400,
            said("The prompt was refused", innererror={"code": "ResponsibleAIPolicyViolation"}),
            True,
        ),
        (403, said("Your input was flagged", metadata={"flagged_input": "x"}), True),
    ],
)
def test_a_request_that_was_refused_ends_no_run(status: int, body: Any, filtered: bool) -> None:
    found = error(status, body)
    assert isinstance(found, RequestFailed)
    assert found.filtered is filtered


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, said("bad key"), "refuses the key"),
        (400, said("invalid x-api-key"), "refuses the key"),
        (403, said("Invalid token"), "refuses the key"),
        (403, said("Country not supported"), "refuses access (HTTP 403: Country not supported)"),
        (403, "<html>Just a moment", "refuses access (HTTP 403: HTML, '<html>Just a moment')"),
        (403, "no", "refuses the key"),
        (403, said("Monthly token quota is used up"), "refuses access (HTTP 403: Monthly token"),
        (200, said("Incorrect API key provided"), "refuses the key (HTTP 401)"),
        (404, said("no"), "has no model 'm', or nothing at /chat/completions (HTTP 404: no)"),
        (400, said("no", code="model_not_found"), "has no model 'm' (HTTP 400: no)"),
        (400, said("Invalid model name passed in model=m. Call `/v1/models`"), "has no model 'm'"),
        (400, {"detail": "Server is pinned to 'n'; requested 'm'."}, "has no model 'm' (HTTP 400"),
        (400, said("Model Not Exist"), "has no model 'm'"),
        (400, said("m is not a valid model ID"), "has no model 'm'"),
        (422, said("Invalid model: m"), "has no model 'm'"),
        (400, said("No connected db.", type="no_db_connection"), "refuses the key"),
        (405, "<html>405 Not Allowed", "or nothing at /chat/completions (HTTP 405). Check"),
        (429, said("Try again in 7200s"), "asks for a pause of 7,200 s"),
    ],
)
def test_what_will_refuse_all_ends_the_run(status: int, body: Any, words: str) -> None:
    found = error(status, body)
    assert isinstance(found, EndpointError)
    assert words in str(found)
    assert "\n" not in str(found)


def test_a_key_that_is_missing_is_told_from_a_wrong_one() -> None:
    bare = ResolvedEndpoint(base_url="http://h/v1", api_key="none", model="m", identity="m")
    raw = json.dumps(said("Unauthorized"))
    assert "demands a key (HTTP 401)" in str(error_from_response(bare, 401, {}, raw))
    known = dataclasses.replace(bare, api_key="k")
    assert "refuses the key (HTTP 401)" in str(error_from_response(known, 401, {}, raw))


def test_what_the_provider_behind_a_gateway_said_is_told() -> None:
    cause = json.dumps(said("context of 8,192 tokens exceeded"))
    found = error(400, said("Provider returned error", metadata={"raw": cause}))
    assert str(found) == "HTTP 400: Provider returned error: context of 8,192 tokens exceeded"


def test_no_secret_stands_in_an_error() -> None:
    secrets = ("sk-secret-0123456789", "pass-word", "query-secret", "header-secret")
    for status in (200, 400, 401, 402, 404, 429, 500):
        text = str(error(status, said(" ".join(secrets))))
        assert not any(secret in text for secret in secrets)
        assert "me:" not in text
    assert not any(secret in repr(ENDPOINT) for secret in ("sk-secret", "header-secret"))


def test_a_pause_is_read_from_headers_in_all_its_forms() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_delay_s({"retry-after": "2"}) == 2
    assert retry_delay_s({"retry-after": "2", "retry-after-ms": "1500"}) == 1.5
    found = retry_delay_s({"retry-after": later})
    assert found is not None
    assert 28 <= found <= 30
    assert retry_delay_s({"retry-after": "soon"}) is None
    assert retry_delay_s({"retry-after": "1m30s"}) == 90


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (
            [{"error": {"message": "Please retry in 39.52s.", "details": [{"retryDelay": "39s"}]}}],
            39.52,
        ),
        ({"error": {"message": "Please try again in 6m0s."}}, 360),
        ({"error": {"message": "Try again in 20ms"}}, 0.02),
        ({"error": {"message": "Too many requests, wait 12 seconds."}}, 12),
        ({"error": {"message": "Rate limit resets in 1 minute"}}, 60),
        ({"error": {"message": "Please retry your request after 20 seconds."}}, 20),
        ({"error": {"message": "Slow down", "retry_after": 12}}, 12),
        ({"retry_after_ms": 1500, "message": "x"}, 1.5),
        ({"error": "Model x is loading", "estimated_time": 20.0}, 20),
        ({"error": {"message": "Please try again in 1 minute and 30 seconds."}}, 90),
        ({"error": {"message": "Try again in 1 day."}}, 86400),
        ({"error": {"message": "Slow down. Retry after 30"}}, 30),
        ({"error": {"metadata": {"headers": {"Retry-After": "30"}}, "message": "x"}}, 30),
        ({"error": {"message": "Limit of 60 requests per minute reached"}}, None),
        ({"error": {"message": "You may try 3 models"}}, None),
    ],
)
def test_a_pause_is_read_from_the_body(body: Any, seconds: float | None) -> None:
    assert retry_delay_s({}, json.dumps(body)) == seconds


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "an empty body"),
        ("<html>gateway</html>", "HTML, '<html>gateway"),
        ('{"choices": [{"mess', "JSON that is cut"),
        ("\x1f\ufffd\ufffd\ufffd", "compressed"),
        ("ok", "text, 'ok'"),
    ],
)
def test_a_body_that_is_no_completion_is_described(raw: str, words: str) -> None:
    assert words in describe_body(raw)
