"""Endpoints that are not OpenAI's newest: each kind is asked end to end, with log and budget."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import endpoint_kinds as kinds
import native_bodies as native
import pytest
from endpoint_kinds import Behaviour, EndpointOfKind
from endpoints import complete, resolved
from mutations import check_reply

from core.errors import BudgetError, EndpointError, NoCreditError
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.prices import Price
from generators.llm.log.request_log import RequestLog
from generators.llm.testing import is_probe

PRICE = Price(input=100.0, output=100.0)


def request(number: int, sampling: SamplingConfig | None = None) -> Request:
    return Request(
        messages=(("system", "You write about a house."), ("user", f"Write of lantern {number}")),
        schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        name="test",
        max_tokens=32,
        sampling=sampling or SamplingConfig(),
    )


def ask(
    endpoint: EndpointOfKind,
    folder: Path,
    count: int = 3,
    *,
    said: list[str] | None = None,
    sampling: SamplingConfig | None = None,
    **changes: Any,
) -> tuple[list[Outcome], LLMClient]:
    requests = [request(number, sampling) for number in range(count)]
    heard: list[str] = [] if said is None else said
    return complete(resolved(endpoint, **changes), folder, requests, 4, say=heard.append)


ANSWERS: dict[str, Behaviour] = {
    "renamed limit": kinds.renamed_limit,
    "temperature or top_p": kinds.one_of_temperature_and_top_p,
    "no sampling": kinds.neither_temperature_nor_top_p,
    "no seed": kinds.no_seed,
    "lists what it takes": kinds.lists_what_it_takes,
    "temperature 1": kinds.only_one,
    "no system role": kinds.no_system_role(400),
    "no system role, llama.cpp": kinds.no_system_role(500),
    "content in parts": kinds.content_parts,
    "content in a call": kinds.in_a_call,
    "thought inside": kinds.thought_inside,
    "thought of Seed": kinds.thought_of("<seed:think>", "</seed:think>"),
    "thought of Magistral": kinds.thought_of("[THINK]", "[/THINK]"),
    "thought of Kimi": kinds.thought_of("◁think▷", "◁/think▷"),
    "thought of Command A": kinds.thought_of("<|START_THINKING|>", "<|END_THINKING|>"),
    "thought of EXAONE": kinds.thought_of("<thought>", "</thought>"),
    "thought of gpt-oss": kinds.thought_of(
        "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"
    ),
    "an answer about thoughts": kinds.tells_of_thoughts,
    "content as an object": kinds.content_as_object,
    "byte order mark": kinds.byte_order_mark,
    "DeepSeek breaks off": kinds.breaks_off_at_first("insufficient_system_resource"),
    "vLLM breaks off": kinds.breaks_off_at_first("abort"),
    "GLM breaks off": kinds.breaks_off_at_first("network_error"),
    "content in a call of old": kinds.in_a_function_call,
    "words around it": kinds.fenced,
    "no usage": kinds.no_usage,
    "endless usage": kinds.endless_usage,
    "HTML at first": kinds.html_at_first,
    "error in a choice": kinds.error_in_choice,
    "limit in a 200": kinds.limit_in_200,
    "Google's limit": kinds.throttled(403, {"error": {"message": "Rate limit exceeded"}}),
    "Bedrock's limit": kinds.throttled(400, {"message": "ThrottlingException: please wait"}),
    "MiniMax's limit": kinds.throttled(
        200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}
    ),
    "Anthropic's overload": kinds.throttled(
        200, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    ),
    **{kind: native.replying(write) for kind, write in native.NATIVE.items()},
    "stream broken off": native.stream_broken_off_at_first,
    "stream with an error": native.stream_with_an_error_at_first,
    "choices in another order": native.choices("", "{}", order=(1, 0)),
    "text in the second choice": native.choices(None, "", order=(0, 1)),
    "no choice at first": native.no_choice_at_first,
}
STATUSES: dict[str, tuple[Behaviour, str]] = {
    "native safety": (kinds.native_safety, "filtered"),
    "filter without message": (kinds.filter_without_message, "filtered"),
    "blocked prompt": (kinds.blocked_prompt, "filtered"),
    "flagged input": (kinds.flagged_input, "filtered"),
    "native length": (kinds.native_length, "cut_off"),
    "Anthropic's length": (kinds.ended_as("model_context_window_exceeded"), "cut_off"),
    "vLLM's length": (kinds.ended_as("max_model_length"), "cut_off"),
    "Cohere's filter": (kinds.ended_as("ERROR_TOXIC", cut=False), "filtered"),
    "ends within its thought": (kinds.ends_within_its_thought, "empty"),
    "context in a 200": (kinds.context_in_200, "failed"),
    "DeepSeek's filter": (
        lambda number, body: (
            (200, {}, kinds.good(body)) if is_probe(body) else kinds.refused("Content Exists Risk")
        ),
        "filtered",
    ),
    "declines": (kinds.declines, "refusal"),
    "declines in a part": (kinds.declines_in_a_part, "refusal"),
    "flagged in a 200": (kinds.flagged_in_200, "filtered"),
    "Anthropic's own length": (
        native.unfinished(lambda text: native.anthropic(text, "max_tokens")),
        "cut_off",
    ),
    "Gemini's own length": (
        native.unfinished(lambda text: native.gemini(text, "MAX_TOKENS")),
        "cut_off",
    ),
    "Gemini's own filter": (native.unfinished(native.gemini_filtered), "filtered"),
    "Gemini's own block": (native.unfinished(native.gemini_blocked), "filtered"),
    "length of responses": (native.unfinished(native.responses_cut), "cut_off"),
    "no choice": (native.no_choice, "failed"),
}
NO_MONEY: dict[str, Behaviour] = {
    "402": kinds.no_money(402, "Insufficient Balance"),
    "balance": kinds.no_money(400, "Your credit balance is too low to access the API."),
    "billing": kinds.no_money(429, "Your account is not active, check your billing details."),
    "in a 200": kinds.no_money_in_200,
    "in a 200 of its own": lambda number, body: (
        *(200, {}),
        {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None},
    ),
    "no credits": kinds.no_money(403, "Your team doesn't have any credits yet."),
    "no more credits": kinds.no_money(429, "You have no more credits."),
    "OpenRouter's key": kinds.no_money(403, "Key limit exceeded (total limit)."),
    "spending limit": kinds.no_money(412, "Account x is suspended: monthly spending limit."),
    "regained later": kinds.no_money(
        400, "You have reached your specified API usage limits. You will regain access on 1 May."
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_request_has_its_answer_and_is_had_again_without_asking(
    kind: str, tmp_path: Path
) -> None:
    with EndpointOfKind(ANSWERS[kind]) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path)
        assert [outcome.status for outcome in outcomes] == ["answer"] * 3
        assert all(isinstance(parse_reply(one, request(0).schema), dict) for one in outcomes)
        asked = len(endpoint.requests)
        assert ask(endpoint, tmp_path)[0] == outcomes
        assert len(endpoint.requests) == asked


@pytest.mark.parametrize("kind", STATUSES)
def test_what_is_no_answer_is_told_as_what_it_is(kind: str, tmp_path: Path) -> None:
    behaviour, status = STATUSES[kind]
    with EndpointOfKind(behaviour) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path)
    assert [outcome.status for outcome in outcomes] == [status] * 3
    assert all(outcome.detail for outcome in outcomes)


@pytest.mark.parametrize("kind", NO_MONEY)
def test_no_credit_is_told_at_once(kind: str, tmp_path: Path) -> None:
    with EndpointOfKind(NO_MONEY[kind]) as endpoint:
        with pytest.raises(NoCreditError, match="no credit left") as caught:
            ask(endpoint, tmp_path)
        assert len(endpoint.requests) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
        {"code": "invalid argument", "error": "Incorrect API key provided: sk-sec***89."},
    ],
)
def test_a_bad_key_is_one_whatever_its_status(body: Any, tmp_path: Path) -> None:
    with EndpointOfKind(lambda number, sent: (400, {}, body)) as endpoint:
        with pytest.raises(EndpointError, match=r"refuses the key \(HTTP 400\)") as caught:
            ask(endpoint, tmp_path)
        assert len(endpoint.requests) == 1
    assert "sk-" not in str(caught.value)


def test_a_refused_value_is_told_without_advice_about_forms(tmp_path: Path) -> None:
    said = "temperature: range: 0..1"
    with (
        EndpointOfKind(lambda number, sent: kinds.refused(said)) as endpoint,
        pytest.raises(EndpointError) as caught,
    ):
        ask(endpoint, tmp_path)
    assert said in str(caught.value)
    assert "Change the setting that it names" in str(caught.value)


def test_a_redirect_shows_no_query(tmp_path: Path) -> None:
    there = {"Location": "https://login.example/?ticket=hush"}
    with (
        EndpointOfKind(lambda number, sent: (302, there, "")) as endpoint,
        pytest.raises(EndpointError, match=r"to 'https://login\.example/'") as caught,
    ):
        ask(endpoint, tmp_path)
    assert "hush" not in str(caught.value)


def test_tokens_counted_in_anthropics_words_are_counted(tmp_path: Path) -> None:
    def counted(number: int, body: Any) -> Any:
        made = kinds.good(body)
        made["usage"] = {"input_tokens": 50, "output_tokens": 20}
        return 200, {}, made

    with EndpointOfKind(counted) as endpoint:
        _, client = ask(endpoint, tmp_path, price=PRICE)
    assert (client.usage.prompt_tokens, client.usage.estimated_requests) == (200, 0)


def test_trial_requests_that_do_not_fit_count_against_a_budget_over_restarts(
    tmp_path: Path,
) -> None:
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body, "Yes"))) as endpoint:
        for _ in range(2):
            with pytest.raises(EndpointError, match="ignores JSON schemas"):
                ask(endpoint, tmp_path, 1, price=PRICE, budget_usd=0.02)
        with pytest.raises(BudgetError, match="budget_usd"):
            ask(endpoint, tmp_path, 1, price=PRICE, budget_usd=0.02)
    assert len(endpoint.requests) < 6


@pytest.mark.parametrize("kind", native.NATIVE)
def test_tokens_counted_in_others_words_are_counted(kind: str, tmp_path: Path) -> None:
    with EndpointOfKind(ANSWERS[kind]) as endpoint:
        _, client = ask(endpoint, tmp_path, price=PRICE)
    used = client.usage
    assert (used.prompt_tokens, used.completion_tokens, used.estimated_requests) == (48, 32, 0)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (native.no_choice, "JSON without a reply in it"),
        (native.unfinished(lambda text: 'data: {"choices": [{"delta"'), "a stream of events wit"),
    ],
)
def test_a_budget_holds_where_replies_cannot_be_used(
    behaviour: Behaviour, words: str, tmp_path: Path
) -> None:
    with EndpointOfKind(behaviour) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, 1, price=PRICE, budget_usd=1.0, retries=2)
        assert words in outcomes[0].detail
        spent = client.usage.bought
        _, again = ask(endpoint, tmp_path, 1, price=PRICE, budget_usd=1.0, retries=2)
        assert again.usage.cost_of_cached == pytest.approx(spent)
        paid = len(endpoint.requests)
        with pytest.raises(BudgetError):
            ask(endpoint, tmp_path, 1, price=PRICE, budget_usd=2.1 * spent, retries=9)
        assert len(endpoint.requests) <= paid + 1


@pytest.mark.parametrize(
    "error",
    [
        {"detail": "Please wait"},
        {"code": 1302, "msg": "too many"},
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}},
    ],
)
def test_an_error_in_a_200_costs_nothing(error: dict[str, Any], tmp_path: Path) -> None:
    def failing(number: int, body: Any) -> Any:
        return 200, {}, kinds.good(body) if is_probe(body) or number % 2 else error

    with EndpointOfKind(failing) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, 3, price=PRICE, budget_usd=1.0, retries=9)
    assert {outcome.status for outcome in outcomes} == {"answer"}
    assert client.usage.cost == pytest.approx(4 * 0.007)


@pytest.mark.parametrize(
    ("behaviour", "refused", "line"),
    [
        (kinds.renamed_limit, "max_tokens", "takes max_completion_tokens in place of max_tokens"),
        (kinds.one_of_temperature_and_top_p, "top_p", "refuses top_p, which is left out"),
        (kinds.no_seed, "seed", "refuses seed, which is left out"),
    ],
)
def test_a_field_that_is_refused_is_found_out_once_and_kept(
    behaviour: Behaviour, refused: str, line: str, tmp_path: Path
) -> None:
    said: list[str] = []
    with EndpointOfKind(behaviour) as endpoint:
        ask(endpoint, tmp_path, 3, said=said)
        ask(endpoint, tmp_path, 6, said=said)
        assert sum(refused in body for body in endpoint.requests) == 1
    assert [text for text in said if line in text] == said
    assert len(said) == 1


def test_refusals_one_after_another_are_all_found_by_the_trial_and_kept(tmp_path: Path) -> None:
    said: list[str] = []
    with EndpointOfKind(kinds.refuses_one_after_another) as endpoint:
        for count in (2, 5):
            outcomes, client = ask(endpoint, tmp_path, count, said=said, structured="auto")
            assert [outcome.status for outcome in outcomes] == ["answer"] * count
        assert len(endpoint.work) == 5
    assert sum("scripted refuses" in line or "scripted takes" in line for line in said) == 5
    assert client.form == "prompt"


def test_a_form_that_is_refused_with_http_500_gives_way_to_the_next(tmp_path: Path) -> None:
    def validates(number: int, body: Any) -> Any:
        if body.get("response_format", {}).get("type") == "json_schema":
            said = "1 validation error:\n  {'loc': ('body', 'response_format', 'type')}"
            return kinds.refused(said, 500)
        return 200, {}, kinds.good(body)

    with EndpointOfKind(validates) as endpoint:
        _, client = ask(endpoint, tmp_path, structured="auto")
    assert client.form == "json"
    assert len(endpoint.requests) == 2 + len(endpoint.work)


def test_a_server_that_fails_is_not_taken_to_refuse_a_field(tmp_path: Path) -> None:
    def fails(number: int, body: Any) -> Any:
        if number in (1, 3):
            return kinds.refused("Unexpected failure of the seed at temperature 0.7", 500)
        return 200, {}, kinds.good(body)

    said: list[str] = []
    with EndpointOfKind(fails) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, said=said)
        assert all({"seed", "temperature"} <= set(body) for body in endpoint.requests)
    assert [outcome.status for outcome in outcomes] == ["answer"] * 3
    assert said == []


def test_the_old_name_of_the_limit_is_taken_where_the_new_one_is_refused(tmp_path: Path) -> None:
    from generators.llm.chat.dialect import ChatDialect

    first = ChatDialect(limit_field="max_completion_tokens")
    adapted = first.adapted({"max_completion_tokens": 9}, "Extra inputs: max_completion_tokens")
    assert adapted == ChatDialect(limit_field="max_tokens")
    assert first.adapted({"max_completion_tokens": 9}, "max_completion_tokens is too big") is None


def test_the_trial_request_carries_what_real_ones_carry(tmp_path: Path) -> None:
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        ask(
            endpoint,
            tmp_path,
            1,
            reasoning_effort="low",
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )
        trial, real = endpoint.requests
    own = {"messages", "response_format", "seed", "max_tokens"}
    assert {k: v for k, v in trial.items() if k not in own} == {
        k: v for k, v in real.items() if k not in own
    }
    assert trial["reasoning_effort"] == "low"
    assert trial["chat_template_kwargs"] == {"enable_thinking": False}
    assert {"seed", "temperature", "top_p"} <= set(trial)


def test_without_a_seed_none_is_sent(tmp_path: Path) -> None:
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        ask(endpoint, tmp_path, 2, sampling=SamplingConfig(seed=None))
        assert not any("seed" in body for body in endpoint.requests)


def test_a_cut_thought_is_named_and_room_for_it_is_a_setting(tmp_path: Path) -> None:
    with EndpointOfKind(kinds.thinks_first) as endpoint:
        with pytest.raises(EndpointError, match=r"within its thought, at 64 .*thinking_tokens"):
            ask(endpoint, tmp_path)
        outcomes, _ = ask(endpoint, tmp_path, thinking_tokens=300)
        assert endpoint.requests[-1]["max_tokens"] == 332
    assert [outcome.status for outcome in outcomes] == ["answer"] * 3


def test_a_trial_that_is_all_thought_and_says_that_it_ended_is_told_as_that(
    tmp_path: Path,
) -> None:
    def thinks(number: int, body: Any) -> Any:
        made = kinds.good(body)
        made["choices"][0]["message"] = {"content": "", "reasoning": "Let me see."}
        return 200, {}, made

    with (
        EndpointOfKind(thinks) as endpoint,
        pytest.raises(EndpointError, match=r"within its thought, at 64 .*thinking_tokens"),
    ):
        ask(endpoint, tmp_path)


def test_a_delay_in_the_body_is_heeded(tmp_path: Path) -> None:
    with EndpointOfKind(kinds.window(2, 0.6)) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, 5, retries=1)
        assert len(endpoint.requests) < 20
    assert [outcome.status for outcome in outcomes] == ["answer"] * 5


def test_a_storm_of_429_stalls_no_run(tmp_path: Path) -> None:
    with EndpointOfKind(kinds.storm) as endpoint:
        start = time.monotonic()
        outcomes, _ = ask(endpoint, tmp_path, 40, retries=5, backoff_s=0.1)
        assert time.monotonic() - start < 20
    assert [outcome.status for outcome in outcomes] == ["answer"] * 40


def test_without_usage_the_most_it_can_have_cost_counts_and_shows_as_that(tmp_path: Path) -> None:
    with EndpointOfKind(kinds.no_usage) as endpoint:
        with pytest.raises(BudgetError, match=r"at most, as the endpoint counts no tokens"):
            ask(endpoint, tmp_path, 20, price=PRICE, budget_usd=0.1)
        paid = len(endpoint.requests)
        assert 1 < paid < 20
        with pytest.raises(BudgetError):  # also not by starting again
            ask(endpoint, tmp_path, 20, price=PRICE, budget_usd=0.1)
        assert len(endpoint.requests) == paid
        _, client = ask(endpoint, tmp_path, 20, price=PRICE)
    assert client.usage.estimated_requests == 20 - (paid - 1)
    assert client.usage.summary().startswith("at most ")


def test_responses_that_do_not_come_count_against_a_budget_over_resumes(tmp_path: Path) -> None:
    def silent(number: int, body: Any) -> Any:
        if not is_probe(body):
            time.sleep(0.6)
        return 200, {}, kinds.good(body)

    settings: dict[str, Any] = {"price": PRICE, "budget_usd": 0.05, "timeout_s": 0.3, "retries": 9}
    with EndpointOfKind(silent) as endpoint:
        with pytest.raises(BudgetError, match=r"at most, as the endpoint counts no tokens"):
            ask(endpoint, tmp_path, 1, **settings)
        asked = len(endpoint.work)
        assert 1 < asked < 9
        with pytest.raises(BudgetError):
            ask(endpoint, tmp_path, 1, **settings)
        assert len(endpoint.work) == asked


@pytest.mark.parametrize("behaviour", [kinds.half_a_pair, kinds.deep_nesting])
def test_a_poisoned_reply_is_an_outcome_and_ends_no_later_run(
    behaviour: Behaviour, tmp_path: Path
) -> None:
    with EndpointOfKind(behaviour) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path)
        asked = len(endpoint.requests)
        again, _ = ask(endpoint, tmp_path)
        assert again == outcomes
        assert len(endpoint.requests) == asked
    found = [parse_reply(outcome, request(0).schema) for outcome in outcomes]
    assert all(isinstance(one, Rejection) and one.reason == "malformed" for one in found)
    for outcome in outcomes:
        json.dumps([outcome.content, outcome.detail], ensure_ascii=False).encode()


def test_a_budget_counts_both_replies_of_a_request_over_resumes(tmp_path: Path) -> None:
    def malformed(number: int, body: Any) -> Any:
        is_first = len(body["messages"]) == 2 and not is_probe(body)
        content = '{"b": 1}' if is_first else None
        return 200, {}, kinds.good(body, content)

    with EndpointOfKind(malformed) as endpoint:
        _, first = ask(endpoint, tmp_path, 3, price=PRICE)
        _, again = ask(endpoint, tmp_path, 3, price=PRICE)
        assert again.usage.cost == 0
    assert first.usage.cost == pytest.approx(7 * 0.007)  # three, corrected, and the trial
    assert again.usage.cost_of_cached == pytest.approx(6 * 0.007)


def test_requests_under_way_when_a_run_ends_count_against_a_budget(tmp_path: Path) -> None:
    """One is refused for its key while the others wait for replies, which are paid for."""
    waiting = threading.Barrier(4)

    def withdrawn(number: int, body: Any) -> Any:
        if is_probe(body):
            return 200, {}, kinds.good(body)
        if waiting.wait(5) == 0:
            return 401, {}, {"error": {"message": "invalid key"}}
        time.sleep(1)
        return 200, {}, kinds.good(body)

    with (
        EndpointOfKind(withdrawn) as endpoint,
        pytest.raises(EndpointError, match="refuses the key"),
    ):
        ask(endpoint, tmp_path, 4, price=PRICE, budget_usd=1.0)
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        _, client = ask(endpoint, tmp_path, 4, price=PRICE, budget_usd=1.0)
    most = PRICE.of(request(0).max_usage(0))
    assert client.usage.cost_of_cached == pytest.approx(3 * most)


def test_a_trial_request_is_logged_and_paid_once(tmp_path: Path) -> None:
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        for count in (1, 2, 3):
            _, client = ask(endpoint, tmp_path, count, price=PRICE)
        assert len(endpoint.requests) - len(endpoint.work) == 1
    assert client.usage.cost == pytest.approx(0.007)
    assert client.usage.cost_of_cached == pytest.approx(3 * 0.007)  # the trial's among them


def test_a_cached_reply_counts_with_what_its_provider_took(tmp_path: Path) -> None:
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        ask(endpoint, tmp_path, 2)  # at no known price
        ask(endpoint, tmp_path, 4, price=PRICE)
        _, cheap = ask(endpoint, tmp_path, 4, price=Price(input=1, output=1))
    assert cheap.usage.cost_of_cached == pytest.approx(2 * 0.007 + 2 * 0.00007)


@pytest.mark.parametrize("key", ["lantern", "EMPTY", "latentqa", "12345", "secret"])
def test_a_key_that_is_a_word_changes_no_reply(key: str, tmp_path: Path) -> None:
    def telling(number: int, body: Any) -> Any:
        return 200, {}, kinds.good(body, None if is_probe(body) else f'{{"a": "a {key} again"}}')

    with EndpointOfKind(telling) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, 1, api_key=key)
    assert json.loads(outcomes[0].content) == {"a": f"a {key} again"}


def test_two_experiments_that_want_the_same_ask_each_request_once(tmp_path: Path) -> None:
    def slow(number: int, body: Any) -> Any:
        time.sleep(0.05)
        return 200, {}, kinds.good(body)

    async def both(endpoint: EndpointOfKind) -> tuple[list[Outcome], list[Outcome]]:
        async def one(count: int) -> list[Outcome]:
            with RequestLog(tmp_path / "log.sqlite") as log:
                client = LLMClient(resolved(endpoint), log, 4)
                try:
                    return await client.complete_all([request(n) for n in range(count)])
                finally:
                    await client.close()

        return await asyncio.gather(one(12), one(8))

    with EndpointOfKind(slow) as endpoint:
        more, fewer = asyncio.run(both(endpoint))
        assert len(endpoint.work) == 12
    assert fewer == more[:8]


def test_claims_of_a_client_that_ended_are_taken_over(tmp_path: Path) -> None:
    log_path = tmp_path / "log.sqlite"
    RequestLog(log_path).__exit__(None, None, None)
    with sqlite3.connect(log_path) as db:
        keys = [request(n).key("scripted@1") for n in range(3)]
        owners = ["elsewhere:1:dead", "elsewhere:2:dead", "elsewhere:3:dead"]
        db.executemany("INSERT INTO claims VALUES (?, ?)", zip(keys, owners, strict=True))
        db.executemany("INSERT INTO owners VALUES (?, ?)", [(o, time.time() - 60) for o in owners])
    with EndpointOfKind(lambda number, body: (200, {}, kinds.good(body))) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path)
    assert [outcome.status for outcome in outcomes] == ["answer"] * 3


def test_two_servers_of_one_name_are_told(tmp_path: Path) -> None:
    def sound(number: int, body: Any) -> Any:
        return 200, {}, kinds.good(body)

    said: list[str] = []
    with EndpointOfKind(sound) as one, EndpointOfKind(sound) as two:
        ask(one, tmp_path, 2, said=said, identity="scripted")
        assert said == []
        ask(two, tmp_path, 2, said=said, identity="scripted")
        (line,) = said
        assert one.base_url in line
        assert "generate.endpoint.revision" in line
        said.clear()
        told: dict[str, Any] = {"identity": 'scripted {"reasoning_effort":"low"}', "said": said}
        ask(one, tmp_path, 2, **told)
        ask(two, tmp_path, 2, **told)
        assert len(said) == 1
        said.clear()
        ask(one, tmp_path, 2, said=said)  # with a revision they are one on purpose
        ask(two, tmp_path, 2, said=said)
        for server in (one, two):  # the packaged model has another port each time it is served
            ask(server, tmp_path, 2, said=said, identity="gguf:sha256:abc")
    assert said == []


def test_a_mutated_reply_spoils_no_other(tmp_path: Path) -> None:
    for seed in range(25):
        check_reply(seed, tmp_path)
