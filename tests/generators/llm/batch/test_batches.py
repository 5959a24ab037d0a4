"""Batch mode against the scripted files and batches API, over real HTTP, with its faults."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoints import complete, resolved
from lantern_requests import number_of, numbered, request
from scripted_batches import BatchFault
from scripted_endpoint import Fault, ScriptedEndpoint

from core.errors import BudgetError, EndpointError
from generators.llm.batch.log import BatchLog
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.endpoint.config import BatchConfig
from generators.llm.endpoint.prices import Price
from generators.llm.testing import is_probe

ROOT = Path(__file__).parents[4]
KEY = "sk-secret-0123456789"


def ask(
    endpoint: ScriptedEndpoint,
    folder: Path,
    numbers: range = range(10),
    *,
    said: list[str] | None = None,
    heard: list[int] | None = None,
    batch: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[list[Outcome], LLMClient]:
    """Outcomes of the numbered requests in batch mode, looked after every 20 ms."""
    config = BatchConfig.model_validate({"poll_s": 0.02, **(batch or {})})
    return complete(
        resolved(endpoint, mode="batch", batch=config, **changes),
        folder,
        [request(number) for number in numbers],
        say=([] if said is None else said).append,
        report=([] if heard is None else heard).append,
    )


def answers(outcomes: list[Outcome]) -> list[str]:
    return [json.loads(outcome.content)["a"] for outcome in outcomes]


def asked(endpoint: ScriptedEndpoint) -> list[int]:
    """Numbers of the requests that were carried out, re-asks included, in order of number."""
    return sorted(number_of(body) for body in endpoint.work)


def on_batch(number: int, fault: BatchFault) -> Any:
    return lambda batch: fault if batch == number else None


def rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "log.sqlite") as db:
        return db.execute(query).fetchall()


def test_lines_in_any_order_are_joined_by_their_id(tmp_path: Path) -> None:
    heard: list[int] = []
    with ScriptedEndpoint(numbered, batch_polls=3) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, range(30), heard=heard)
        (output,) = [data for name, data in endpoint.account.files.items() if "output" in name]
    assert answers(outcomes) == [str(n) for n in range(30)]
    came = [json.loads(line)["id"] for line in output.decode().split("\n")]
    assert came != sorted(came, key=lambda name: int(name.split("-")[1]))
    assert sum(heard) == 30
    assert heard.count(0) >= 3
    assert (client.usage.requests, client.usage.completion_tokens) == (30, 620)


def test_live_and_batch_share_all_replies(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        batched, _ = ask(endpoint, tmp_path, range(5))
        eight = [request(number) for number in range(8)]
        both, _ = complete(resolved(endpoint), tmp_path, eight)
        assert both[:5] == batched
        again, _ = ask(endpoint, tmp_path, range(8))
        assert again == both
        assert asked(endpoint) == list(range(8))
        assert len(endpoint.account.batches) == 1


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [({"requests": 4}, [4, 4, 2]), ({"megabytes": 0.0033}, [4, 4, 2])],
)
def test_limits_of_lines_and_bytes_are_respected(
    tmp_path: Path, limits: dict[str, Any], sizes: list[int]
) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, batch=limits)
        files = [data for name, data in endpoint.account.files.items() if name.startswith("file-")]
    assert [data.count(b"\n") for data in files] == sizes
    assert all(len(data) <= limits.get("megabytes", 200) * 1e6 for data in files)
    assert answers(outcomes) == [str(n) for n in range(10)]


@pytest.mark.parametrize("fault", ["expired", "no_output", "no_file"])
def test_what_a_batch_leaves_goes_into_another_and_what_it_finished_does_not(
    tmp_path: Path, fault: BatchFault
) -> None:
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, fault)) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path)
        assert len(endpoint.account.batches) == 2
        second = endpoint.account.files[endpoint.account.batches[1]["input_file_id"]]
    assert answers(outcomes) == [str(n) for n in range(10)]
    assert second.count(b"\n") == (5 if fault == "expired" else 10)
    states = rows(tmp_path, "SELECT state, count(*) FROM batch_items GROUP BY state ORDER BY state")
    assert states == [("lost", 5 if fault == "expired" else 10), ("replied", 10)]


def test_errors_of_lines_are_told_apart(tmp_path: Path) -> None:
    def faults(number: int, body: Mapping[str, Any]) -> Fault | None:
        if is_probe(body) or number > 11:
            return None
        return {0: "500", 1: "429", 2: "400", 3: "garbage", 4: "refusal"}.get(number_of(body))  # type: ignore[return-value]

    with ScriptedEndpoint(numbered, fault=faults) as endpoint:
        outcomes, client = ask(endpoint, tmp_path)
    assert [outcome.status for outcome in outcomes] == [
        *("answer", "answer", "failed", "answer", "refusal"),
        *["answer"] * 5,
    ]
    assert "HTTP 400" in outcomes[2].detail
    assert client.usage.failed_requests == 1
    attempts = rows(tmp_path, "SELECT status, count(*) FROM attempts GROUP BY status")
    assert attempts == [(200, 11), (400, 1), (429, 1), (500, 1)]


def test_after_its_rounds_a_request_has_failed_or_is_asked_live(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered, batch_fault=lambda number: "expired") as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, batch={"rounds": 2})
        assert [outcome.status for outcome in outcomes].count("failed") == 3
        assert {o.detail.split(",")[0] for o in outcomes if o.status == "failed"} != {""}
        outcomes, client = ask(endpoint, tmp_path, batch={"rounds": 1, "fall_back": True})
        assert answers(outcomes) == [str(n) for n in range(10)]
        assert client.usage.cached_requests == 7
        assert asked(endpoint) == list(range(10))


@pytest.mark.parametrize("fall_back", [False, True])
def test_a_reply_that_breaks_its_schema_is_asked_once_more(tmp_path: Path, fall_back: bool) -> None:
    def once(number: int, body: Mapping[str, Any]) -> Fault | None:
        broken = not is_probe(body) and len(body["messages"]) == 2 and number_of(body) < 3
        return "violation" if broken else None

    with ScriptedEndpoint(numbered, fault=once) as endpoint:
        outcomes, client = ask(endpoint, tmp_path, batch={"fall_back": fall_back})
        assert answers(outcomes) == [str(n) for n in range(10)]
        assert len(endpoint.account.batches) == (1 if fall_back else 2)
        assert client.usage.requests == 13
        before = len(endpoint.requests)
        assert ask(endpoint, tmp_path)[0] == outcomes
        assert len(endpoint.requests) == before


def test_few_requests_are_asked_live(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(4), batch={"smallest": 5})
        assert answers(outcomes) == ["0", "1", "2", "3"]
        assert not endpoint.account.batches


def test_a_key_that_stops_working_ends_the_run_and_the_right_one_goes_on(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered, key=KEY, batch_polls=3) as endpoint:
        look, looks = endpoint.account.handle, 0

        def withdrawn(method: str, path: str, kind: str, data: bytes) -> Any:
            nonlocal looks
            looks += method == "GET"
            if looks == 1:
                endpoint.key = "another"
            return look(method, path, kind, data)

        endpoint.account.handle = withdrawn  # type: ignore[method-assign]
        with pytest.raises(EndpointError, match=r"refuses the key \(HTTP 401\)") as caught:
            ask(endpoint, tmp_path)
        assert "\n" not in str(caught.value)
        assert not endpoint.work
        endpoint.key = KEY
        outcomes, _ = ask(endpoint, tmp_path)
        assert len(endpoint.account.batches) == 1
    assert answers(outcomes) == [str(n) for n in range(10)]


def test_a_batch_of_another_account_is_not_paid_for_twice_unless_wanted(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, "failed")) as endpoint:
        ask_in_vain(endpoint, tmp_path)
        with sqlite3.connect(tmp_path / "log.sqlite") as db:
            db.execute("UPDATE batches SET state = 'submitted'")
            db.execute("UPDATE batch_items SET state = 'waiting'")
        endpoint.account.batches.clear()
        with pytest.raises(EndpointError, match=r"does not know batch batch_1.*resubmit_unknown"):
            ask(endpoint, tmp_path)
        assert not endpoint.work
        endpoint.batch_fault = lambda number: None
        endpoint.account._looks.clear()
        outcomes, _ = ask(endpoint, tmp_path, batch={"resubmit_unknown": True})
    assert answers(outcomes) == [str(n) for n in range(10)]


def ask_in_vain(endpoint: ScriptedEndpoint, folder: Path) -> None:
    with pytest.raises(EndpointError, match="failed batch"):
        ask(endpoint, folder)


def test_a_batch_that_fails_as_a_whole_is_told_and_made_anew_by_the_next_run(
    tmp_path: Path,
) -> None:
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, "failed")) as endpoint:
        with pytest.raises(EndpointError, match=r"Enqueued token limit.*batch\.requests"):
            ask(endpoint, tmp_path)
        outcomes, _ = ask(endpoint, tmp_path)
    assert answers(outcomes) == [str(n) for n in range(10)]


def test_a_cancelled_batch_keeps_what_it_finished(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, "cancelled")) as endpoint:
        with pytest.raises(EndpointError, match="cancelled batch batch_1"):
            ask(endpoint, tmp_path)
        outcomes, client = ask(endpoint, tmp_path)
        assert asked(endpoint) == list(range(10))
    assert answers(outcomes) == [str(n) for n in range(10)]
    assert client.usage.cached_requests == 5


def test_a_batch_whose_making_was_not_confirmed_is_found_and_not_made_again(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, "cut")) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, said=said)
        assert len(endpoint.account.batches) == 1
    assert answers(outcomes) == [str(n) for n in range(10)]


_WORKER = """
import sys
from pathlib import Path
from tests.generators.llm.batch.test_batches import ask
class There:
    base_url = sys.argv[2]
ask(There(), Path(sys.argv[1]), timeout_s=60)
"""


def test_a_kill_between_submit_and_commit_loses_and_doubles_no_batch(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered, batch_fault=on_batch(1, "hang"), hang_s=60) as endpoint:
        worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), endpoint.base_url],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        try:
            while not endpoint.account.batches:
                assert worker.poll() is None
                time.sleep(0.02)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        assert rows(tmp_path, "SELECT state, batch_id FROM batches") == [("intended", None)]
        said: list[str] = []
        outcomes, _ = ask(endpoint, tmp_path, said=said)
        assert len(endpoint.account.batches) == 1
        assert asked(endpoint) == list(range(10))
    assert answers(outcomes) == [str(n) for n in range(10)]
    assert "found again" in said[0]


def test_a_kill_before_the_batch_was_made_makes_it_from_the_uploaded_lines(
    tmp_path: Path,
) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        ask(endpoint, tmp_path)
        # as if the process had ended right after the upload
        with sqlite3.connect(tmp_path / "log.sqlite") as db:
            db.execute("DELETE FROM replies")
            db.execute("UPDATE batches SET state = 'intended', batch_id = NULL")
            db.execute("UPDATE batch_items SET state = 'waiting'")
        endpoint.account.batches.clear()
        endpoint.account._looks.clear()
        outcomes, _ = ask(endpoint, tmp_path)
        files = [name for name in endpoint.account.files if name.startswith("file-")]
        assert files == ["file-1"]
    assert answers(outcomes) == [str(n) for n in range(10)]


def test_a_kill_while_collecting_keeps_every_reply_and_reads_the_rest(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        ask(endpoint, tmp_path)
        with sqlite3.connect(tmp_path / "log.sqlite") as db:
            db.execute(
                "DELETE FROM replies WHERE key IN "
                "(SELECT key FROM replies WHERE prompt != 'probe' LIMIT 4)"
            )
            db.execute("UPDATE batches SET state = 'submitted'")
            db.execute("UPDATE batch_items SET state = 'waiting'")
        outcomes, client = ask(endpoint, tmp_path)
        assert asked(endpoint) == list(range(10))
    assert answers(outcomes) == [str(n) for n in range(10)]
    assert (client.usage.cached_requests, client.usage.requests) == (6, 4)


def test_batched_replies_cost_their_share_and_stay_within_the_budget(tmp_path: Path) -> None:
    price = Price(input=100.0, output=100.0)  # 50 + 20 tokens, at half: $ 0.0035
    most = price.of(request(0).max_usage(0)) / 2
    budget = 0.007 + 2 * most  # of the trial, and of two that cost all they can
    settings: dict[str, Any] = {"price": price, "budget_usd": budget}
    with ScriptedEndpoint(numbered) as endpoint:
        with pytest.raises(BudgetError, match=rf"\$ 0\.0\d+ of \$ {budget:.4f}"):
            ask(endpoint, tmp_path, range(20), **settings)
        had = len(endpoint.work)
        assert 2 <= had <= (budget - 0.007) / 0.0035
        outcomes, client = ask(endpoint, tmp_path, range(20), **(settings | {"budget_usd": 1.0}))
        assert len(outcomes) == len(endpoint.work) == 20
    assert client.usage.cost == pytest.approx(0.0035 * (20 - had))
    assert client.usage.cost_of_cached == pytest.approx(0.0035 * had + 0.007)  # the trial
    (total,) = rows(tmp_path, "SELECT sum(cost) FROM attempts WHERE cost IS NOT NULL")[0]
    assert total == pytest.approx(0.0035 * 20, rel=0.3)


def test_lines_without_a_usable_reply_count_against_the_budget(tmp_path: Path) -> None:
    price = Price(input=100.0, output=100.0)
    settings: dict[str, Any] = {"price": price, "batch": {"rounds": 2}, "retries": 0}
    with ScriptedEndpoint(numbered) as endpoint:
        endpoint.account._carry_out = lambda body: (200, {"id": "x", "choices": []})
        outcomes, client = ask(endpoint, tmp_path, range(3), budget_usd=1.0, **settings)
        assert {outcome.status for outcome in outcomes} == {"failed"}
        most = price.of(request(0).max_usage(0)) / 2
        trial = 0.007
        assert client.usage.bought == pytest.approx(6 * most + trial)
        with pytest.raises(BudgetError):
            ask(endpoint, tmp_path, range(3), budget_usd=6 * most + trial, **settings)
    assert client.usage.estimated_requests == 6


def test_a_kill_while_collecting_counts_no_lost_line_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*args: Any) -> None:
        raise InterruptedError

    price = Price(input=100.0, output=100.0)
    settings: dict[str, Any] = {"price": price, "batch": {"rounds": 1}, "retries": 0}
    most = price.of(request(0).max_usage(0)) / 2
    with ScriptedEndpoint(numbered) as endpoint:
        endpoint.account._carry_out = lambda body: (200, {"id": "x", "choices": []})
        with monkeypatch.context() as killed:
            killed.setattr(BatchLog, "ended", die)
            with pytest.raises(InterruptedError):
                ask(endpoint, tmp_path, range(3), budget_usd=1.0, **settings)
        _, client = ask(endpoint, tmp_path, range(3), budget_usd=1.0, **settings)
        assert client.usage.bought + client.usage.cost_of_cached == pytest.approx(3 * most + 0.007)
    ((total,),) = rows(tmp_path, "SELECT sum(cost) FROM attempts WHERE detail != ''")
    assert total == pytest.approx(3 * most)


def test_texts_of_all_kinds_pass_through_lines_unharmed(tmp_path: Path) -> None:
    text = "{a} \"b\" 'c' \\ 日本語 🙂 \u2028 \x85 end"

    with ScriptedEndpoint(
        lambda body: numbered(body) if is_probe(body) else {"a": text}
    ) as endpoint:
        outcomes, _ = ask(endpoint, tmp_path, range(2))
    assert answers(outcomes) == [text, text]


def test_no_secret_reaches_log_error_or_words(tmp_path: Path) -> None:
    said: list[str] = []

    def faults(number: int, body: Mapping[str, Any]) -> Fault | None:
        return "500" if number_of(body) == 1 and not is_probe(body) else None

    with ScriptedEndpoint(
        lambda body: numbered(body) if is_probe(body) else {"a": f"your key is {KEY}"},
        fault=faults,
        key=KEY,
    ) as endpoint:
        ask(endpoint, tmp_path, said=said, batch={"rounds": 1})
        at = endpoint.base_url.replace("//", "//user:pass-word@")
        endpoint.batch_fault = lambda number: "failed"
        with pytest.raises(EndpointError) as caught:
            ask(endpoint, tmp_path, range(10, 12), said=said, base_url=at)
    texts = "".join([*said, str(caught.value)]).encode()
    for data in [texts, *(path.read_bytes() for path in tmp_path.iterdir())]:
        assert KEY.encode() not in data
        assert b"pass-word" not in data
    bodies = rows(tmp_path, "SELECT body FROM replies")
    assert all(KEY.encode() not in zlib.decompress(body) for (body,) in bodies)


def test_an_endpoint_without_batches_is_told(tmp_path: Path) -> None:
    with ScriptedEndpoint(numbered) as endpoint:
        endpoint.account.handle = lambda *asked: (404, {"error": {"message": "no"}})  # type: ignore[method-assign]
        with pytest.raises(EndpointError, match=r"takes no batch \(HTTP 404.*mode: live"):
            ask(endpoint, tmp_path)
