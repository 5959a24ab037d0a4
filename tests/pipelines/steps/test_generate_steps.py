"""Kinds that code draws go through the same steps, and need neither endpoint nor model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from activation_store.model_files import embedded_model as embedded
from core.errors import ModelError
from core.records.table_files import read_conversations
from generators.kinds.config import TextSource
from generators.kinds.sources import ResolvedTexts, resolve_texts
from pipelines.running.request import RunRequest
from pipelines.steps.generate import GENERATED
from pipelines.steps.shared.step import ExternalInputs

TEXT = " ".join(f"word{i}" for i in range(1000))


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights, no network: whoever wants either fails."""

    def none(*words: Any) -> Any:
        raise ModelError("the embedded weights were wanted")

    def connect(*words: Any) -> Any:
        raise AssertionError("a connection was wanted")

    monkeypatch.setattr(embedded, "gguf_path", none)
    monkeypatch.setattr(socket.socket, "connect", connect)


def request(folder: Path, kinds: dict[str, Any], *overrides: str) -> RunRequest:
    path = folder / "own.yaml"
    section = {"conversations": {"kinds": kinds}}
    path.write_text(json.dumps({"experiment": "own", "generate": section}))
    return RunRequest(
        config=str(path), root=str(folder / "root"), overrides=overrides, until="questions"
    )


def texts(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(TEXT)
    return str(folder)


def test_drawn_kinds_run_without_an_llm_and_are_cached(tmp_path: Path) -> None:
    kinds = {
        "profile": {"controls": 6},
        "context": {"controls": 2, "source": texts(tmp_path / "t")},
    }
    first = request(tmp_path, kinds).open().run()
    assert [(run.step.name, run.cached) for run in first.steps] == [
        ("conversations", False),
        ("questions", False),
    ]
    rows = read_conversations(first.steps[0].artifact.data / "conversations.parquet")
    assert [row.kind for row in rows] == ["profile"] * 18 + ["context"] * 6
    assert all(run.cached for run in request(tmp_path, kinds).open().run().steps)
    assert not (tmp_path / "root/requests.sqlite").exists()


def test_other_texts_are_other_conversations_and_another_place_is_not(tmp_path: Path) -> None:
    def run(folder: str) -> Any:
        kinds = {"context": {"controls": 2, "source": folder}}
        return request(tmp_path, kinds).open().run().steps[0]

    here = texts(tmp_path / "here")
    assert not run(here).cached
    assert run(texts(tmp_path / "there")).cached
    (tmp_path / "here/a.txt").write_text(TEXT + " more")
    assert not run(here).cached


def test_kinds_of_an_llm_want_one_beside_drawn_kinds_too(tmp_path: Path) -> None:
    kinds = {"profile": {"controls": 3}, "persona": {"controls": 3}}
    with pytest.raises(ModelError, match="the embedded weights were wanted"):
        request(tmp_path, kinds).open().run()


def test_the_identity_names_sources_only_where_there_are_any(tmp_path: Path) -> None:
    conversations = GENERATED[0]
    plain = request(tmp_path, {"profile": {"controls": 3}}).open().experiment
    assert "source" not in conversations.config(plain)["kinds"]["profile"]
    assert set(conversations.external(ExternalInputs(plain))) == {"texts"}
    short = {"context": {"controls": 2, "source": texts(tmp_path / "t")}}
    cut = request(tmp_path, short).open().experiment
    assert "path" not in conversations.config(cut)["kinds"]["context"]["source"]
    assert set(conversations.external(ExternalInputs(cut))["sources"]["context"]) == {"files"}
    long = {"context": {"controls": 2, "source": {"path": str(tmp_path / "t")}}}
    same = request(tmp_path, long).open().experiment
    assert conversations.config(same) == conversations.config(cut)


def test_the_experiment_on_profiles_is_drawn(tmp_path: Path) -> None:
    done = RunRequest(
        config=str(Path(__file__).parents[3] / "experiments/profiles.yaml"),
        root=str(tmp_path),
        until="questions",
    )
    rows = read_conversations(done.open().run().steps[0].artifact.data / "conversations.parquet")
    assert {row.split for row in rows} == {"train", "validation", "test", "test_ood"}


def test_local_texts_are_read_again_beside_a_data_set_that_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("one")
    local = TextSource(path=str(path))
    elsewhere = ResolvedTexts(source=local, identity={"dataset": "a/b", "commit": "0" * 40})
    outside = ExternalInputs(request(tmp_path, {"profile": {"controls": 2}}).open().experiment)
    before = resolve_texts(local)
    outside.text_sources = {"own": before, "hub": elsewhere}
    outside.forget_digests()
    assert outside.text_sources == {"own": before, "hub": elsewhere}
    path.write_text("two")
    outside.forget_digests()
    assert outside.text_sources["own"].identity != before.identity
    assert outside.text_sources["hub"] is elsewhere
