import asyncio
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from generators.asking import Asker
from generators.errors import EndpointError
from generators.generate_config import SamplingConfig
from generators.llm_request import Outcome, Request
from generators.request_log import RequestLog
from generators.testing import ScriptedEndpoint, plausible_reply
from tests.generators.endpoints import resolved


def request(number: int) -> Request:
    return Request(
        messages=(("user", f"Write about lantern {number}"),),
        schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        name="test",
        max_tokens=8,
        sampling=SamplingConfig(),
    )


def ask(
    endpoint: ScriptedEndpoint, path: Path, numbers: range, width: int = 8, **changes: Any
) -> tuple[list[Outcome], Asker]:
    async def work() -> tuple[list[Outcome], Asker]:
        with RequestLog(path / "log.sqlite") as log:
            asker = Asker(resolved(endpoint, **changes), log, width)
            try:
                return await asker.ask_all([request(n) for n in numbers]), asker
            finally:
                await asker.close()

    return asyncio.run(work())


def test_outcomes_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    def reply(body: Mapping[str, Any]) -> str:
        number = int(body["messages"][-1]["content"].split()[-1])
        time.sleep(0.05 if number % 3 == 0 else 0)
        return str(number)

    def probe_first(body: Mapping[str, Any]) -> Any:
        name = body["response_format"]["json_schema"]["name"]
        return plausible_reply(body) if name == "probe" else reply(body)

    with ScriptedEndpoint(probe_first) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(20))
    assert [outcome.content for outcome in outcomes] == [str(n) for n in range(20)]


def test_what_is_in_the_log_is_not_asked_again_and_costs_nothing(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        ask(endpoint, tmp_path, range(5))
        _, asker = ask(endpoint, tmp_path, range(8))
        assert len(endpoint.work) == 8
    spent = asker.spent
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

    def reply(body: Mapping[str, Any]) -> dict[str, str]:
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
        outcomes, asker = ask(endpoint, tmp_path, range(2), retries=0)
        assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
        assert asker.spent.failed_requests == 2
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
