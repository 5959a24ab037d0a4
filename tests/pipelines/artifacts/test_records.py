"""Records say how, and hold no credential."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from pipelines.artifacts.records import Spent, StepResult, git_state, make_record, package_versions
from pipelines.steps.shared.metrics import metrics_of


def record(**locations: Any) -> dict[str, Any]:
    return make_record(
        result=StepResult(counts={"rows": 1}, tokens=5, cost=0.25),
        earlier=Spent(tokens=10, cost=0.5),
        runtime={"device": "cpu"},
        locations=locations,
        seconds=1.23456,
        resumed=False,
        source="s",
    )


def test_a_record_keeps_counts_tokens_and_cost() -> None:
    found = record()
    assert (found["counts"], found["tokens"], found["cost"]) == ({"rows": 1}, 5, 0.25)


def test_a_record_adds_up_what_was_spent_before() -> None:
    assert record()["total"] == {"tokens": 15, "cost": 0.75}


def test_spending_of_an_unknown_price_is_unknown() -> None:
    records: list[dict[str, Any]] = [{"tokens": 3, "cost": 1.0}, {"tokens": 4, "cost": None}]
    assert Spent.of(records) == Spent(tokens=7, cost=None)


def test_versions_are_those_that_are_installed() -> None:
    assert package_versions()["numpy"] == metadata.version("numpy")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://user:secret@host/v1?key=secret#secret", "https://host/v1"),
        ("https://host:8000/v1", "https://host:8000/v1"),
        ("/a/folder", "/a/folder"),
        ("org/name@main", "org/name@main"),
        (None, None),
    ],
)
def test_a_location_holds_no_credential(text: str | None, kept: str | None) -> None:
    assert record(endpoint=text)["locations"] == {"endpoint": kept}


def test_environment_never_reaches_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in str(record())


def test_git_state_is_a_commit_and_a_flag_or_nothing() -> None:
    found = git_state()
    assert found is None or (len(found["commit"]) == 40 and isinstance(found["dirty"], bool))


def test_metrics_of_no_steps_are_empty() -> None:
    assert metrics_of({}) == {}


def test_metrics_merge_what_was_dropped_by_reason() -> None:
    found = metrics_of(
        {
            "conversations": {"counts": {"controls": 1, "dropped": {"a": 1, "b": 2}}},
            "questions": {"counts": {"questions": 3, "dropped": {"b": 1}}},
        }
    )
    assert found["data"] == {"controls": 1, "questions": 3, "dropped": {"a": 1, "b": 3}}
    assert found["cost"] == {"tokens": 0, "usd": 0.0}
