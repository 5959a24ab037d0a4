"""Own conversations as SDKs, ShareGPT, Alpaca and data sets have them; their controls, splits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from core.table_files import read_conversations, read_dropped
from core.tables import Conversation
from generators.exchange.config import ImportConfig, RowsConfig
from generators.exchange.conversation_files import (
    import_own_conversations,
    import_own_questions,
    read_own,
)

QUESTIONS = [["Who?", "A ferryman."]]
CALL = {"id": "1", "type": "function", "function": {"name": "sh", "arguments": "{}"}}


def read(folder: Path, lines: list[Any], **rows: Any) -> list[Conversation]:
    folder.mkdir(exist_ok=True)
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    config = ImportConfig(rows=RowsConfig(**rows))
    import_own_conversations(path, folder / "out", config=config)
    import_own_questions(path, folder / "out", folder / "questions", rows=config.rows)
    return read_conversations(folder / "out" / "conversations.parquet")


def shared(number: int, **more: Any) -> dict[str, Any]:
    """Make a row whose system prompt all rows have."""
    messages = [
        {"role": "system", "content": "Be brief.", "segment": "control"},
        {"role": "user", "content": f"Turn {number}", "segment": "stimulus"},
    ]
    return {"messages": messages, "questions": QUESTIONS, **more}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None, "tool_calls": [CALL], "refusal": None, "annotations": []}, ""),
        ({"content": "Hm.", "reasoning_content": "Let me.", "audio": None, "id": "msg_1"}, "Hm."),
        ({"content": "", "tool_calls": [CALL | {"index": 0, "extra_content": {"a": 1}}]}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "b"}]}, "b"),
        ({"content": [{"type": "tool_use", "id": "1", "name": "sh", "input": {"a": 1}}]}, ""),
        ({"content": None, "refusal": "I would rather not."}, "I would rather not."),
        ({"content": None, "function_call": {"name": "sh", "arguments": "null"}}, ""),
        ({"content": "Hi", "name": "bob", "function_call": None}, "Hi"),
    ],
)
def test_a_message_of_an_sdk_is_kept(message: dict[str, Any], content: str, tmp_path: Path) -> None:
    control = {"role": "user", "content": "Be brief.", "segment": "control", "name": "alice"}
    asked = {"role": "user", "content": "Clean up.", "segment": "stimulus"}
    said = {"role": "assistant", "segment": "stimulus", **message}
    answer = {"role": "tool", "tool_call_id": "1", "content": None, "segment": "stimulus"}
    (row,) = read(tmp_path, [{"messages": [control, asked, said, answer], "questions": QUESTIONS}])
    assert [one.content for one in row.messages] == ["Be brief.", "Clean up.", content, ""]


def test_results_of_tools_inside_a_user_message_become_messages(tmp_path: Path) -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "ok"}],
    }
    row = shared(0)
    row["messages"].append({"role": "user", "content": [result], "segment": "stimulus"})
    (read_row,) = read(tmp_path, [row])
    assert [(one.role, one.content) for one in read_row.messages[2:]] == [("tool", "ok")]


def test_an_image_drops_its_row_by_name(tmp_path: Path) -> None:
    bad = shared(1)
    bad["messages"][1]["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert len(read(tmp_path, [shared(0), bad])) == 1
    (dropped,) = read_dropped(tmp_path / "out" / "dropped.parquet")
    assert (dropped.reason, dropped.where) == ("not_text", "rows.jsonl:2")


@pytest.mark.parametrize(
    ("lines", "rows", "groups"),
    [
        ([shared(i) for i in range(20)], {}, 20),
        ([shared(i) for i in range(20)], {"control": "segment"}, 1),
        ([shared(i, label=f"brief about {i % 10}") for i in range(20)], {}, 10),
        ([shared(i, control_id=i) for i in range(20)], {}, 20),
        ([shared(i, control=f"brief about {i % 10}") for i in range(20)], {}, 10),
        ([shared(i) for i in range(20)], {"control": "conversation"}, 20),
    ],
)
def test_what_a_control_is_is_the_rows_to_say(
    lines: list[Any], rows: dict[str, Any], groups: int, tmp_path: Path
) -> None:
    found = read(tmp_path, lines, **rows)
    assert len({row.group_id for row in found}) == groups
    assert len({row.control_id for row in found}) == groups
    assert len({row.split for row in found}) == (1 if groups == 1 else 3)


def test_a_shared_system_prompt_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, [shared(i) for i in range(20)])
    assert "rows.jsonl: 20 of 20 rows share one system prompt" in caplog.text


def test_a_system_prompt_of_half_the_rows_is_a_control(tmp_path: Path) -> None:
    lines = [shared(i) for i in range(8)]
    for i, one in enumerate(lines[:4]):
        one["messages"][0]["content"] = f"Speak of {i}."
    assert len({row.control_id for row in read(tmp_path, lines)}) == 5


def test_a_segment_of_several_messages_is_one_control(tmp_path: Path) -> None:
    lines = [shared(i) for i in range(20)]
    for one in lines:
        one["messages"][1]["segment"] = "control"
    assert len({row.group_id for row in read(tmp_path, lines)}) == 20


def test_a_rows_own_split_is_kept(tmp_path: Path) -> None:
    names = ("train", "val", "test")
    lines = [shared(i, control_id=i, split=names[i % 3]) for i in range(12)]
    found = [row.split for row in read(tmp_path, lines)]
    assert found == ["train", "validation", "test"] * 4


def test_sharegpt(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "You are a ferryman."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Ahoy"},
    ]
    (row,) = read(tmp_path, [{"conversations": turns, "questions": QUESTIONS}], shape="sharegpt")
    assert [(m.role, m.segment) for m in row.messages] == [
        ("system", "control"), ("user", "stimulus"), ("assistant", "completion"),
    ]  # fmt: skip


def test_alpaca(tmp_path: Path) -> None:
    line = {"instruction": "Sort", "input": "3 1", "output": "1 3", "questions": QUESTIONS}
    (row,) = read(tmp_path, [line], shape="alpaca")
    assert [(m.segment, m.content) for m in row.messages] == [
        ("control", "Sort\n\n3 1"), ("completion", "1 3"),
    ]  # fmt: skip


def test_columns_and_roles_of_other_names_in_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [
        {
            "dialog": [{"who": "seeker", "text": f"Hey {i}"}, {"who": "bot", "text": "Ho"}],
            "question": "Who?",
            "answer": "A seeker.",
        }
        for i in range(3)
    ]
    parts = {name: datasets.Dataset.from_list(rows) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    config = RowsConfig(
        columns={"messages": "dialog", "role": "who", "content": "text"},
        roles={"seeker": "user"},
        segments="first_turn",
    )
    found, dropped = read_own(tmp_path / "saved", config)
    assert dropped == []
    assert [one.row.split for one in found] == ["train"] * 3 + ["test"] * 3
    assert [m.segment for m in found[0].row.messages] == ["control", "completion"]


def mutated(draw: random.Random, value: Any) -> Any:
    """Make a copy of `value` in which some part is something else."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(sorted(value))
        changed = dict(value)
        if draw.random() < 0.2:
            del changed[key]
        elif draw.random() < 0.1:
            changed[key + "s"] = changed.pop(key)
        else:
            changed[key] = mutated(draw, value[key])
        return changed
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], mutated(draw, value[place]), *value[place + 1 :]]
    odd: list[Any] = [
        None, "", " ", 0, -1, 1e308, True, [], {}, "\ud800", "x" * 5000, "\u202e\x9b", [[]], [None],
        {"type": "text"}, {"role": []}, "null", "{", ["text"], {"type": 3}, 10**400,
    ]  # fmt: skip
    return draw.choice(odd)


def test_600_mutations_of_rows_lose_no_good_row(tmp_path: Path) -> None:
    draw = random.Random(15)
    whole = shared(0, label="l", kind="own", category="c", split="train", control_id="a")
    whole["messages"] = [
        *whole["messages"],
        {"role": "assistant", "content": None, "tool_calls": [CALL], "segment": "stimulus"},
        {"role": "tool", "tool_call_id": "1", "content": "ok", "segment": "stimulus"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Done."}],
            "segment": "completion",
        },
    ]
    whole["tools"] = [{"type": "function", "function": {"name": "sh"}}]
    good = [shared(i, control_id=f"good {i}") for i in range(3)]
    for number in range(600):
        odd = json.dumps(mutated(draw, mutated(draw, whole)))
        if draw.random() < 0.2:
            odd = odd[: draw.randint(1, len(odd))]
        path = tmp_path / f"{number}.jsonl"
        text = [json.dumps(good[0]), odd, *map(json.dumps, good[1:])]
        path.write_text("\n".join(text), encoding="utf-8")
        found, dropped = read_own(path)
        labels = [own.row.control for own in found]
        assert [one for one in labels if one.startswith("good")] == ["good 0", "good 1", "good 2"]
        assert len(found) + len(dropped) == 4
        assert all("\n" not in one.detail for one in dropped)
