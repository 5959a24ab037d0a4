"""The step `complete` with an endpoint: what keys its replies, and what a record says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from http_endpoint import ScriptedEndpoint

from pipelines.running.request import RunRequest
from pipelines.steps.complete import COMPLETE
from pipelines.steps.shared.step import ExternalInputs


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("target"))


def request(folder: Path, target: Path, **complete: Any) -> RunRequest:
    kinds = {"profile": {"controls": 4, "views": ["stimulus"]}}
    content = {
        "experiment": "served",
        "generate": {"conversations": {"kinds": kinds}, "questions": {"per_control": 1}},
        "complete": {"max_tokens": 4, "check_rows": 0, **complete},
        "dump": {"model": str(target)},
        "runtime": {"device": "cpu", "threads": 1},
    }
    path = folder / "served.yaml"
    path.write_text(json.dumps(content))
    return RunRequest(config=str(path), root=str(folder / "root"), until="complete")


def test_a_server_is_told_by_its_model_and_not_by_its_address(tmp_path: Path, target: Path) -> None:
    with ScriptedEndpoint(lambda body: {"text": "I am fine."}) as endpoint:
        server = {"model": "served", "base_url": endpoint.base_url}
        first = request(tmp_path, target, endpoint=server).open().run()
    assert [run.cached for run in first.steps] == [False, False, False]
    # and one in which log-probabilities, which might bring token ids, are tried
    assert len(endpoint.requests) == first.metrics["data"]["examples"] // 2 + 1
    moved = {"model": "served", "base_url": "http://127.0.0.1:9/v1"}
    changes = {"endpoint": moved, "min_agreement": 0.5, "batch_rows": 3}
    again = request(tmp_path, target, **changes).open().run()
    assert [run.cached for run in again.steps] == [True, True, True]


def test_replies_that_are_written_here_keep_their_keys(tmp_path: Path, target: Path) -> None:
    own = request(tmp_path, target).open().experiment
    assert COMPLETE.config(own) == {
        "compute_dtype": "float32",
        "max_tokens": 4,
        "unfinished": "keep",
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "batch_rows": 16,
        "seed": 0,
    }
    outside = ExternalInputs(own)
    assert COMPLETE.external(outside) == outside.model_digests


def test_what_becomes_of_replies_is_in_the_key(tmp_path: Path, target: Path) -> None:
    own = request(tmp_path, target, disobedient="drop", neutral_system="You help.").open()
    found = COMPLETE.config(own.experiment)
    assert (found["disobedient"], found["neutral_system"]) == ("drop", "You help.")


def test_another_model_of_a_server_is_another_key(tmp_path: Path, target: Path) -> None:
    found = []
    for name in ("one", "two"):
        server = {"model": name, "base_url": "http://127.0.0.1:9/v1"}
        own = request(tmp_path, target, endpoint=server).open().experiment
        found.append(COMPLETE.external(ExternalInputs(own))["server"])
    assert found == ["one", "two"]
