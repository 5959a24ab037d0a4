"""Long lists of requests, asked in pieces by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import chain
import pytest
from lantern_requests import numbered, request
from scripted_endpoint import ScriptedEndpoint

from core.errors import BudgetError
from core.processes.task_pool import LocalPool, TaskOutcome
from generators.llm import request_tasks
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.resolve import open_endpoint
from generators.llm.request_tasks import complete_with_pool
from generators.llm.session import LLMSession
from generators.llm.testing import is_probe


class LossyPool:
    """Runs every other call in this process; the others are lost before they begin."""

    workers = 2

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
    ) -> Iterator[TaskOutcome]:
        for number, call in enumerate(calls):
            if number % 2:
                yield TaskOutcome(number=number, error=RuntimeError("killed"))
            else:
                yield TaskOutcome(number=number, value=function(**call))


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_tasks, "LEAST_REQUESTS", 5)


def ask(
    endpoint: ScriptedEndpoint, log: Path, count: int, pool: Any, **changes: Any
) -> tuple[list[Outcome], LLMClient]:
    config = EndpointConfig(model="scripted", base_url=endpoint.base_url, **changes)

    wave = [request(number) for number in range(count)]
    with open_endpoint(config, pool=pool) as at:
        return LLMSession(log=log).run(
            at, lambda client: complete_with_pool(client, wave, lambda outcomes: None)
        )


def test_pieces_are_asked_in_other_processes_and_counted_once(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint, chain.forked_processes():
        outcomes, client = ask(endpoint, tmp_path / "log", 20, LocalPool(2))
        assert [outcome.content for outcome in outcomes] == [f'{{"a": "{n}"}}' for n in range(20)]
        assert len(endpoint.work) == 20
        assert (client.usage.requests, client.usage.cached_requests) == (20, 0)
        again, known = ask(endpoint, tmp_path / "log", 20, LocalPool(2))
    assert again == outcomes
    assert (known.usage.requests, known.usage.cached_requests) == (0, 20)
    assert len(endpoint.work) == 20


def test_what_a_lost_call_leaves_is_asked_by_the_caller(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        outcomes, client = ask(endpoint, tmp_path / "log", 20, LossyPool())
        asked = len(endpoint.work)
    assert [outcome.status for outcome in outcomes] == ["answer"] * 20
    assert (asked, client.usage.requests) == (20, 20)


def test_all_calls_together_keep_the_budget(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("scripted: {input: 1000000, output: 1000000}\n")
    with ScriptedEndpoint(numbered) as endpoint:
        with pytest.raises(BudgetError, match=r"\$ .* of \$ 1000\.0000 is spent"):
            ask(endpoint, tmp_path / "log", 20, LossyPool(), prices=str(prices), budget_usd=1000.0)
        asked = [body for body in endpoint.requests if not is_probe(body)]
    assert 0 < len(asked) < 20
