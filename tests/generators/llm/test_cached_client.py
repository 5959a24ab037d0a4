import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import FaultMix, complete, resolved
from lantern_requests import number_of, numbered, request
from scripted_endpoint import Fault, ScriptedEndpoint

from core.errors import BudgetError, EndpointError
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection as QualityFault
from generators.llm.chat.reply_json import parse_reply
from generators.llm.endpoint.prices import Price
from generators.llm.testing import is_probe, plausible_reply


def ask(
    endpoint: ScriptedEndpoint,
    path: Path,
    numbers: range,
    width: int = 8,
    say: Callable[[str], None] = lambda line: None,
    **changes: Any,
) -> tuple[list[Outcome], LLMClient]:
    requests = [request(number) for number in numbers]
    return complete(resolved(endpoint, **changes), path, requests, width, say=say)


def test_outcomes_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    def slow(body: Mapping[str, Any]) -> Any:
        time.sleep(0.05 if number_of(body) % 3 == 0 else 0)
        return numbered(body)

    with ScriptedEndpoint(slow) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(20))
    assert [json.loads(outcome.content)["a"] for outcome in outcomes] == [str(n) for n in range(20)]


def test_what_is_in_the_log_is_not_asked_again_and_costs_nothing(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        ask(endpoint, tmp_path, range(5))
        _, client = ask(endpoint, tmp_path, range(8))
        assert len(endpoint.work) == 8
    spent = client.usage
    assert (spent.requests, spent.cached_requests, spent.completion_tokens) == (3, 5, 60)


def test_another_address_of_the_same_model_shares_the_log(tmp_path: Path) -> None:
    with ScriptedEndpoint() as one, ScriptedEndpoint() as two:
        ask(one, tmp_path, range(3))
        ask(two, tmp_path, range(3), timeout_s=3)
        assert not two.requests
        ask(two, tmp_path, range(3), identity="scripted@2")
        assert len(two.work) == 3


def test_the_endpoint_is_probed_once_and_before_any_work(tmp_path: Path) -> None:
    with ScriptedEndpoint(latency_s=0.02) as endpoint:
        ask(endpoint, tmp_path, range(20))
        names = [r["response_format"]["json_schema"]["name"] for r in endpoint.requests]
    assert names == ["probe", *["test"] * 20]


def test_no_work_is_sent_to_an_endpoint_that_fails_its_probe(tmp_path: Path) -> None:
    with ScriptedEndpoint(lambda body: "prose") as endpoint:
        with pytest.raises(EndpointError, match="ignores JSON schemas"):
            ask(endpoint, tmp_path, range(20))
        assert not endpoint.work


@pytest.mark.parametrize(("width", "slots", "most"), [(3, None, 3), (16, 2, 2)])
def test_no_more_requests_are_under_way_than_allowed(
    tmp_path: Path, width: int, slots: int | None, most: int
) -> None:
    lock = threading.Lock()
    now = highest = 0

    def reply(body: Mapping[str, Any]) -> Any:
        nonlocal now, highest
        with lock:
            now += 1
            highest = max(highest, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return plausible_reply(body)

    with ScriptedEndpoint(reply) as endpoint:
        ask(endpoint, tmp_path, range(20), width, slots=slots)
    assert highest == most


def test_a_failed_request_is_an_outcome_and_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    with ScriptedEndpoint(fault=lambda n, r: "500" if n > 1 else None) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, range(2), retries=0)
        assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
        assert client.usage.failed_requests == 2
    with ScriptedEndpoint() as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(2))
        assert [outcome.status for outcome in outcomes] == ["answer", "answer"]


def test_a_cut_off_reply_is_final_and_kept_as_what_it_is(tmp_path: Path) -> None:
    with ScriptedEndpoint(fault=lambda n, r: "cut_off" if n > 1 else None) as endpoint:
        ask(endpoint, tmp_path, range(2))
        outcomes, _ = ask(endpoint, tmp_path, range(2))
        assert [(o.status, o.cached) for o in outcomes] == [("cut_off", True)] * 2
        assert len(endpoint.work) == 2


def test_a_key_that_stops_working_stops_the_run(tmp_path: Path) -> None:
    with (
        ScriptedEndpoint(fault=lambda n, r: "401" if n > 4 else None) as endpoint,
        pytest.raises(EndpointError, match="refuses the key"),
    ):
        ask(endpoint, tmp_path, range(50), 2)


@pytest.mark.parametrize("fault", ["bad_json", "violation", "prose"])
def test_a_reply_that_breaks_its_schema_is_asked_for_once_more_with_its_fault(
    tmp_path: Path, fault: Fault
) -> None:
    def once(number: int, body: Mapping[str, Any]) -> Fault | None:
        return fault if not is_probe(body) and len(body["messages"]) == 2 else None

    with ScriptedEndpoint(numbered, fault=once) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, range(3))
        assert [json.loads(outcome.content)["a"] for outcome in outcomes] == ["0", "1", "2"]
        assert client.usage.requests == 6
        again = [body["messages"] for body in endpoint.work if len(body["messages"]) == 4]
        assert {m[2]["role"] for m in again} == {"assistant"}
        assert all("cannot be used" in m[3]["content"] for m in again)
        before = len(endpoint.requests)
        repeated, _ = ask(endpoint, tmp_path, range(3))
        assert repeated == outcomes
        assert len(endpoint.requests) == before


def test_a_reply_that_breaks_its_schema_again_is_listed_as_that(tmp_path: Path) -> None:
    with ScriptedEndpoint(
        numbered, fault=lambda n, body: None if is_probe(body) else "violation"
    ) as endpoint:
        (outcome,), _ = ask(endpoint, tmp_path, range(1))
        assert outcome.content == '{"something": "else"}'
        assert len(endpoint.work) == 2


def test_a_kill_between_a_reply_and_its_correction_asks_for_the_correction_alone(
    tmp_path: Path,
) -> None:
    def once(number: int, body: Mapping[str, Any]) -> Fault | None:
        return "violation" if not is_probe(body) and len(body["messages"]) == 2 else None

    with ScriptedEndpoint(numbered, fault=once) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(2))
        # as if the process had been killed before the corrections were committed
        corrections = [outcome.key for outcome in outcomes]
        with sqlite3.connect(tmp_path / "log.sqlite") as db:
            db.executemany("DELETE FROM replies WHERE key = ?", [(key,) for key in corrections])
        before = len(endpoint.work)
        again, _ = ask(endpoint, tmp_path, range(2))
        assert again == outcomes
        assert len(endpoint.work) == before + 2


def test_a_reply_of_the_log_that_cannot_be_read_is_an_outcome(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        ask(endpoint, tmp_path, range(2))
        with sqlite3.connect(tmp_path / "log.sqlite") as db:
            db.execute("UPDATE replies SET body = ?", (zlib.compress(b"no JSON"),))
        outcomes, _ = ask(endpoint, tmp_path, range(2))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]


def test_requests_that_are_the_same_are_asked_once(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        twice = [request(1), request(2), request(1)]
        outcomes, _ = complete(resolved(endpoint), tmp_path, twice)
        assert [json.loads(outcome.content)["a"] for outcome in outcomes] == ["1", "2", "1"]
        assert len(endpoint.work) == 2


def test_an_endpoint_without_schemas_is_asked_in_words_and_says_so(tmp_path: Path) -> None:
    def worded(body: Mapping[str, Any]) -> Any:
        made = numbered(body)
        return f"<think>{{what?}}</think>```json\n{json.dumps(made)}\n```"

    said: list[str] = []
    with ScriptedEndpoint(worded, formats=(), refuses_formats=True) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, range(3), structured="auto", say=said.append)
        assert [json.loads(outcome.content)["a"] for outcome in outcomes] == ["0", "1", "2"]
        assert client.form == "prompt"
        assert all("response_format" not in body for body in endpoint.work)
        assert all("JSON schema" in body["messages"][0]["content"] for body in endpoint.work)
        assert said == [
            "generate.endpoint: scripted does not enforce JSON schemas; used is the prompt alone, "
            "with the schema in it."
        ]
        before = len(endpoint.requests)
        # what was found is known to the next run, which so needs no endpoint
        repeated, _ = ask(endpoint, tmp_path, range(3), structured="auto")
        assert repeated == outcomes
        ask(endpoint, tmp_path, range(3), structured="prompt")
        assert len(endpoint.requests) == before


def test_forms_share_no_replies_and_the_default_keeps_its_keys(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        ask(endpoint, tmp_path, range(3), structured="json")
        ask(endpoint, tmp_path, range(3))
        assert len(endpoint.work) == 6
        ask(endpoint, tmp_path, range(3), structured="auto")
        assert len(endpoint.work) == 6


def test_a_budget_is_not_passed_and_more_money_goes_on_where_it_ended(tmp_path: Path) -> None:
    price = Price(input=100.0, output=100.0)  # a reply of 50 + 20 tokens: $ 0.007
    most = price.of(request(0).max_usage(0))
    budget = 0.05 + most
    changes: dict[str, Any] = {"price": price, "budget_usd": budget}
    with ScriptedEndpoint(numbered) as endpoint:
        for _ in range(2):  # also not by trying again
            with pytest.raises(BudgetError, match=rf"\$ 0\.0\d+ of \$ {budget:.4f}") as caught:
                ask(endpoint, tmp_path, range(20), **changes)
            assert "\n" not in str(caught.value)
            assert caught.value.exit_code == 2
        assert 0.05 - 0.007 <= (len(endpoint.work) + 1) * 0.007 <= budget  # with the trial
        had = len(endpoint.work)
        outcomes, client = ask(endpoint, tmp_path, range(20), **(changes | {"budget_usd": 1.0}))
        assert len(outcomes) == len(endpoint.work) == 20
        assert client.usage.cost == pytest.approx(0.007 * (20 - had))
        assert client.usage.cost_of_cached == pytest.approx(0.007 * (had + 1))  # and the trial's


def test_what_has_no_price_costs_nothing_that_is_known(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        _, client = ask(endpoint, tmp_path, range(2))
    assert client.usage.cost is None
    assert client.usage.summary() == "210 tokens"  # two requests, and the trial before them


def test_under_all_faults_every_request_has_its_own_outcome(tmp_path: Path) -> None:
    faults = FaultMix(seed=1)
    with ScriptedEndpoint(numbered, fault=faults, hang_s=30) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, range(200), timeout_s=0.5, retries=8)
    assert len(outcomes) == 200
    read = [parse_reply(outcome, request(0).schema) for outcome in outcomes]
    for number, found in enumerate(read):
        if isinstance(found, QualityFault):
            # a reply may break its schema a second time: that is then the request's outcome
            assert found.reason in ("malformed", "refusal", "cut_off", "failed")
            assert found.detail
        else:
            assert found["a"] == str(number)
    assert sum(not isinstance(found, QualityFault) for found in read) > 180
    assert client.usage.failed_requests == 0
