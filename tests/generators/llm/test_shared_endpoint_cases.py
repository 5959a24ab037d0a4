"""The endpoints that users met, where their files lie beside the checkout: each in a whole run.

`test_endpoint_kinds.py` has the same kinds in words of our own, and needs no files.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from endpoint_kinds import EndpointOfKind, good

from core.errors import DataError, EndpointError, NoCreditError
from core.records.table_files import read_conversations
from pipelines.running.request import RunRequest

CASES = (
    Path(os.environ.get("LATENTQA_CASES", Path(__file__).parents[3].parent / "shared" / "cases"))
    / "endpoints"
)

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="the files of the endpoints are not beside the checkout"
)


def case(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> ModuleType:
    """Load a case, with `good` for its replies."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    spec = importlib.util.spec_from_file_location(f"case_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.good = good  # type: ignore[attr-defined]
    return module


@contextmanager
def serving(module: ModuleType) -> Iterator[EndpointOfKind]:
    reply: Callable[..., Any] = module.reply

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        return reply(number, "/v1/chat/completions", {}, body)

    with EndpointOfKind(behaviour) as endpoint:
        yield endpoint


def run(endpoint: EndpointOfKind, folder: Path, **settings: Any) -> Path:
    """Generate conversations and questions; returns the folder of the conversations."""
    (folder / "own.yaml").write_text(
        json.dumps(
            {
                "experiment": "own",
                "generate": {
                    "endpoint": {"model": "m", "base_url": endpoint.base_url, **settings},
                    "conversations": {"kinds": {"goal": {"controls": 2}}},
                    "questions": {"per_control": 2},
                },
            }
        )
    )
    result = RunRequest(
        config=str(folder / "own.yaml"), root=str(folder / "root"), until="questions"
    )
    paths = {run.step.name: run.artifact.path for run in result.open().run().steps}
    return paths["conversations"]


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("max_completion_tokens", {}),
        ("temperature_and_top_p", {}),
        ("content_parts", {}),
        ("no_usage", {}),
        ("delay_in_body", {"WINDOW": "1.5", "N": "3"}),
    ],
)
def test_a_run_has_its_rows(
    name: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(case(name, monkeypatch, **environment)) as endpoint:
        folder = run(endpoint, tmp_path)
    assert read_conversations(folder / "data" / "conversations.parquet")


def test_a_cut_thought_is_named_and_has_room_by_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(case("thought_eats_the_probe", monkeypatch)) as endpoint:
        with pytest.raises(EndpointError, match=r"within its thought.*thinking_tokens"):
            run(endpoint, tmp_path)
        assert run(endpoint, tmp_path, thinking_tokens=1000)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("no_credit", {"KIND": "402"}),
        ("no_credit", {"KIND": "anthropic"}),
        ("no_credit", {"KIND": "billing"}),
        ("error_in_200", {"CODE": "402"}),
    ],
)
def test_no_credit_ends_the_run_at_once(
    name: str, variant: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(case(name, monkeypatch, **variant)) as endpoint:
        with pytest.raises(NoCreditError, match="no credit left"):
            run(endpoint, tmp_path)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(("code", "words"), [("429", "HTTP 429"), ("502", "HTTP 502")])
def test_an_error_in_a_200_counts_with_its_code(
    code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(case("error_in_200", monkeypatch, CODE=code)) as endpoint,
        pytest.raises(EndpointError, match=words),
    ):
        run(endpoint, tmp_path, retries=0)


@pytest.mark.parametrize(
    ("kind", "reason"), [("native", "filtered"), ("nomessage", "filtered"), ("max", "cut_off")]
)
def test_a_filter_and_a_limit_are_told_in_others_words(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(case("safety_filter", monkeypatch, KIND=kind)) as endpoint,
        pytest.raises(DataError, match=rf"{reason} \d"),
    ):
        run(endpoint, tmp_path)
