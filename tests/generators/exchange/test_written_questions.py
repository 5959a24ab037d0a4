"""Questions about conversations of one's own, written by an LLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversation_lines import write
from scripted_endpoint import ScriptedEndpoint

from core.errors import ConfigError
from core.records.table_files import read_conversations, read_questions
from pipelines.experiment.config import load_experiment
from pipelines.running.request import RunRequest

SHARED = "You are the help desk of a lighthouse."


def rows() -> list[dict[str, Any]]:
    """Make rows without questions: with a shared system prompt, and of several kinds."""
    shared = [
        {"messages": [{"role": "system", "content": SHARED, "segment": "control"},
                      {"role": "user", "content": f"Lamp {i} is dark.", "segment": "stimulus"}]}
        for i in range(6)
    ]  # fmt: skip
    own = {"messages": [{"role": "user", "content": "Be a ferryman.", "segment": "control"}]}
    return [*shared, own | {"kind": "persona"}, own | {"kind": "harbour", "label": "pilot"}]


def experiment(folder: Path, endpoint: str, **changes: Any) -> Path:
    write(folder / "own.jsonl", *rows())
    settings = {
        "experiment": "own",
        "data": {
            "path": str(folder / "own.jsonl"),
            "format": "conversations",
            "rows": {"questions": "written"},
        },
        "generate": {
            "endpoint": {"model": "scripted", "base_url": endpoint},
            "questions": {"per_control": 2},
        },
    }
    (folder / "own.yaml").write_text(json.dumps(settings | changes))
    return folder / "own.yaml"


def run(config: Path, folder: Path) -> dict[str, Any]:
    request = RunRequest(config=str(config), root=str(folder / "root"), until="questions")
    return {step.step.name: step for step in request.open().run().steps}


def test_every_control_is_asked_about_in_its_own_words(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        config = experiment(tmp_path, endpoint.base_url)
        steps = run(config, tmp_path)
        asked = [body["messages"][-1]["content"] for body in endpoint.work]
        again = run(config, tmp_path)
        assert len(endpoint.work) == len(asked)
    conversations = read_conversations(
        steps["conversations"].artifact.data / "conversations.parquet"
    )
    questions = read_questions(steps["questions"].artifact.data / "questions.parquet")
    assert {one.example_id for one in questions} == {row.example_id for row in conversations}
    assert {one.type for one in questions} == {"description", "prediction"}
    # where the system prompt is shared, a control is its whole conversation
    for i in range(6):
        assert any(f"System: {SHARED}\nUser: Lamp {i} is dark." in text for text in asked)
    assert any("User: Be a ferryman." in text for text in asked)  # kind harbour
    assert again["questions"].cached


def test_the_endpoint_has_to_be_named(tmp_path: Path) -> None:
    path = experiment(tmp_path, "http://127.0.0.1:1/v1", generate=None)
    with pytest.raises(ConfigError, match="got written without a section generate"):
        load_experiment(path)


def test_given_questions_and_an_endpoint_are_two_sources(tmp_path: Path) -> None:
    path = experiment(tmp_path, "http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="exactly one of the sections data, generate"):
        load_experiment(path, ["data.rows.questions=given"])


def test_conversations_are_written_or_imported(tmp_path: Path) -> None:
    path = experiment(tmp_path, "http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="the conversations come from data"):
        load_experiment(path, ["generate.conversations.seed=1"])


def test_published_files_bring_their_questions(tmp_path: Path) -> None:
    path = experiment(tmp_path, "http://127.0.0.1:1/v1")
    with pytest.raises(
        ConfigError, match=r"data\.format latentqa, expected data\.format conversations"
    ):
        load_experiment(path, ["data.format=latentqa"])
