"""The target's own replies: once each, resumed, with the row that they complete."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import stores
import tiny
import tool_turns
from plain_pool import TwoWorkers

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.target import replies
from activation_store.target import reply_batches as module
from activation_store.target.config import CompleteConfig
from activation_store.target.replies import CompleteResult
from activation_store.target.reply_text import TargetReply
from activation_store.tokens.tokens import COMPLETION_IDS
from core.errors import DataError
from core.processes.task_pool import TaskPool
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    read_conversations,
    read_dropped,
    write_conversations,
)
from core.records.tables import COMPLETES, Conversation, Message, control_id, example_id

CONFIG = CompleteConfig(max_tokens=6, batch_rows=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return resolve_model(str(tiny.save(tmp_path_factory.mktemp("target") / "tiny")))


def row(i: int, view: str = "stimulus") -> Conversation:
    control = Message(role="user", content=f"Be number {i}.", segment="control")
    said = Message(role="assistant", content="Yes.", segment="control")
    stimulus = Message(role="user", content="How are you?" + "!" * i, segment="stimulus")
    messages = (control,) if view == "control" else (control, said, stimulus)
    label = f"persona-number-{i}"
    return Conversation(
        example_id=example_id(label, view, messages),  # type: ignore[arg-type]
        control_id=control_id("persona", control.content),
        group_id=label,
        kind="persona",
        category="number",
        label=label,
        view=view,  # type: ignore[arg-type]
        split="train",
        source="generator",
        messages=messages,
    )


@pytest.fixture
def rows(tmp_path: Path) -> list[Conversation]:
    rows = [row(0, "control"), *(row(i) for i in range(5))]
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, rows)
    return rows


def run(
    folder: Path,
    model: ModelFiles,
    config: CompleteConfig = CONFIG,
    pool: TaskPool | None = None,
) -> CompleteResult:
    return stores.reply(folder / "in", folder, model, config, pool=pool)


def test_a_row_that_the_template_cannot_word_is_dropped_and_told(
    tmp_path: Path, model: ModelFiles
) -> None:
    calling = Message(
        role="assistant",
        content="",
        segment="stimulus",
        tool_use=json.dumps({"tool_calls": [tool_turns.call({"city": "Oslo"})]}),
    )
    asked = row(0)
    asked = dataclasses.replace(asked, messages=(*asked.messages, calling))
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, [asked, row(1)])
    for _ in range(2):  # the second time from what is kept
        assert run(tmp_path, model).dropped == {"template": 1}
    (dropped,) = read_dropped(tmp_path / "out" / DROPPED_FILE)
    assert asked.example_id in dropped.where
    assert "leaves out" in dropped.detail
    *_, made = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert made.provenance[COMPLETES] == row(1).example_id


def test_a_reply_leaves_the_calls_before_it_as_they_are(tmp_path: Path) -> None:
    knows = resolve_model(str(tiny.save(tmp_path / "knows", template=tool_turns.TOOLS_CHATML)))
    calling = json.dumps({"tool_calls": [tool_turns.call({"city": "Oslo"})]})
    asked = row(0)
    turns = (
        Message(role="assistant", content="", segment="stimulus", tool_use=calling),
        Message(role="tool", content="rain", segment="stimulus"),
    )
    asked = dataclasses.replace(asked, messages=(*asked.messages, *turns))
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, [asked])
    run(tmp_path, knows)
    _, made = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert made.messages[:-1] == asked.messages
    assert made.messages[-1].segment == "completion"


def test_system_prompts_are_answered_where_no_control_is_a_users(
    tmp_path: Path, model: ModelFiles
) -> None:
    asked = row(0)
    control = dataclasses.replace(asked.messages[0], role="system")
    asked = dataclasses.replace(asked, view="system", messages=(control, asked.messages[2]))
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, [asked])
    assert run(tmp_path, model).completions == 1
    _, made = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert (made.view, made.messages[:2]) == ("stimulus_completion", asked.messages)


def test_every_stimulus_gets_a_reply_and_the_rows_stay(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles
) -> None:
    counts = run(tmp_path, model)
    found = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert found[: len(rows)] == rows
    made = found[len(rows) :]
    assert [r.provenance[COMPLETES] for r in made] == [r.example_id for r in rows[1:]]
    assert all(r.messages[-1].segment == "completion" and r.messages[-1].content for r in made)
    assert {r.completion_origin for r in made} == {"target"}
    assert {r.view for r in made} == {"stimulus_completion"}
    assert counts.completions == len(made) == 5


def test_batches_give_what_single_rows_give(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles
) -> None:
    run(tmp_path, model)
    together = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    (tmp_path / "alone" / "in").mkdir(parents=True)
    write_conversations(tmp_path / "alone" / "in" / CONVERSATIONS_FILE, rows)
    run(tmp_path / "alone", model, CompleteConfig(max_tokens=6, batch_rows=1))
    assert read_conversations(tmp_path / "alone" / "out" / CONVERSATIONS_FILE) == together


def test_finished_batches_are_not_written_again(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, model)
    before = (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes()
    parts = sorted((tmp_path / "work").glob("*.parquet"))
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:100])  # torn: as good as absent
    asked: list[int] = []
    write = module.ReplyWriter.write

    def counted(self: object, own: list[Conversation], batch: int) -> list[TargetReply]:
        asked.append(batch)
        return write(self, own, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(module.ReplyWriter, "write", counted)
    run(tmp_path, model)
    assert len(asked) == 2
    assert (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes() == before


def test_replies_are_the_same_whoever_writes_the_batches(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"temperature": 1.0})
    run(tmp_path, model, config)
    alone = (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes()
    shutil.rmtree(tmp_path / "work")
    monkeypatch.delattr(replies, "ReplyWriter")  # the caller itself writes none
    run(tmp_path, model, config, TwoWorkers())
    assert (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes() == alone


def test_batches_of_a_failed_call_are_written_by_the_caller(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, model)
    alone = (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes()
    shutil.rmtree(tmp_path / "work")
    write = module.write_batches

    def fail_once(*, batches: list[int], **call: Any) -> int:
        if 0 in batches:
            raise MemoryError("of the device")
        return write(batches=batches, **call)

    monkeypatch.setattr(module, "write_batches", fail_once)
    assert run(tmp_path, model, pool=TwoWorkers()).completions
    assert (tmp_path / "out" / CONVERSATIONS_FILE).read_bytes() == alone


def test_an_unfinished_reply_is_flagged_or_dropped_and_counted(
    tmp_path: Path, rows: list[Conversation], model: ModelFiles
) -> None:
    kept = run(tmp_path, model)
    dropped = run(tmp_path, model, CompleteConfig(max_tokens=6, batch_rows=2, unfinished="drop"))
    assert kept.unfinished == dropped.dropped.get("unfinished", 0)
    assert kept.completions == dropped.completions + kept.unfinished
    assert len(read_dropped(tmp_path / "out" / "dropped.parquet")) == kept.unfinished


def test_nothing_to_answer_is_one_line(tmp_path: Path, model: ModelFiles) -> None:
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, [row(0, "control")])
    with pytest.raises(DataError, match="no conversation has view `stimulus`"):
        run(tmp_path, model)


def test_a_neutral_system_prompt_takes_the_place_of_the_control(
    rows: list[Conversation], tmp_path: Path, model: ModelFiles
) -> None:
    run(tmp_path, model)
    told = [
        r for r in read_conversations(tmp_path / "out" / CONVERSATIONS_FILE) if r.completion_origin
    ]
    shutil.rmtree(tmp_path / "out")
    run(tmp_path, model, CONFIG.model_copy(update={"neutral_system": "You help."}))
    made = read_conversations(tmp_path / "out" / CONVERSATIONS_FILE)
    assert made[: len(rows)] == rows
    for row, own in zip(made[len(rows) :], told, strict=True):
        assert [(m.role, m.content, m.segment) for m in row.messages] == [
            ("system", "You help.", "control"),
            *((m.role, m.content, m.segment) for m in own.messages[2:]),
        ]
        assert row.control_id == own.control_id
        assert row.provenance[COMPLETION_IDS] == own.provenance[COMPLETION_IDS]


def test_a_reply_against_its_control_is_kept_or_dropped_and_counted(
    tmp_path: Path, model: ModelFiles
) -> None:
    checks = {"word": {"words": ["nowhere-to-be-found"]}}
    facts = {"facts": {"checks": checks}}
    asked = [dataclasses.replace(row(0), provenance=facts), row(1)]
    write_conversations(tmp_path / "in" / CONVERSATIONS_FILE, asked)
    assert run(tmp_path, model).completions == 2
    found = run(tmp_path, model, CONFIG.model_copy(update={"disobedient": "drop"}))
    assert (found.completions, found.dropped) == (1, {"disobedient": 1})


def test_replies_are_drawn_until_one_obeys_and_an_obeying_one_is_left_alone(
    rows: list[Conversation], tmp_path: Path, model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, model)
    made = [
        r for r in read_conversations(tmp_path / "out" / CONVERSATIONS_FILE) if r.completion_origin
    ]
    greedy = {row.provenance[COMPLETES]: row.messages[-1].content for row in made}
    obeying = set(list(greedy)[:2])
    monkeypatch.setattr(
        module,
        "obeys_control",
        lambda row, text: row.example_id in obeying or text != greedy[row.example_id],
    )
    shutil.rmtree(tmp_path / "work")
    run(tmp_path, model, CONFIG.model_copy(update={"attempts": 20}))
    again = [
        r for r in read_conversations(tmp_path / "out" / CONVERSATIONS_FILE) if r.completion_origin
    ]
    kept = {row.provenance[COMPLETES]: row.messages[-1].content for row in again}
    assert {own for own in kept if kept[own] == greedy[own]} == obeying


def test_attempts_are_not_for_an_endpoint() -> None:
    with pytest.raises(ValueError, match="attempts: got 2 with an endpoint"):
        CompleteConfig.model_validate({"attempts": 2, "endpoint": {"model": "m"}})
