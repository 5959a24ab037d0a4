"""Own conversations as SDKs, ShareGPT, Alpaca and data sets have them; their controls, splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversation_lines import Imported, write
from mutations import check_rows

from core.errors import DataError
from core.records.tables import Conversation
from generators.exchange.config import RowsConfig
from generators.exchange.conversation_files import (
    read_own_rows,
)

QUESTIONS = [["Who?", "A ferryman."]]
CALL = {"id": "1", "type": "function", "function": {"name": "sh", "arguments": "{}"}}


def read(folder: Path, lines: list[Any], **rows: Any) -> list[Conversation]:
    return Imported(write(folder / "rows.jsonl", *lines), **rows).rows


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
    found = Imported(write(tmp_path / "rows.jsonl", shared(0), bad))
    assert len(found.rows) == 1
    (dropped,) = found.dropped
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
    found, dropped = read_own_rows(tmp_path / "saved", config)
    assert dropped == []
    assert [one.row.split for one in found] == ["train"] * 3 + ["test"] * 3
    assert [m.segment for m in found[0].row.messages] == ["control", "completion"]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps([shared(i) for i in range(3)]).encode(),
        json.dumps([shared(i) for i in range(3)], indent=1).encode(),
        "\n".join(json.dumps(shared(i), indent=2) for i in range(3)).encode(),
        "\n".join(json.dumps(shared(i)) for i in range(3)).encode("utf-16"),
        b"\xef\xbb\xbf" + "\r\n".join(json.dumps(shared(i)) for i in range(3)).encode(),
        "\n".join(json.dumps({**shared(i), "messages": json.dumps(shared(i)["messages"])})
                  for i in range(3)).encode(),
    ],
    ids=["list", "list over lines", "objects over lines", "UTF-16", "CRLF", "lists as text"],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_file_as_other_programs_write_it(data: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(data)
    found, dropped = read_own_rows(path)
    assert dropped == []
    assert [own.row.messages[1].content for own in found] == ["Turn 0", "Turn 1", "Turn 2"]


def test_a_broken_element_of_a_list_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    odd = json.dumps(shared(1)).replace('"Turn 1"', "Infinity")
    path.write_text(f"[{json.dumps(shared(0))},\n{odd},\n{json.dumps(shared(2))}]")
    found, dropped = read_own_rows(path)
    assert len(found) == 2
    assert [(one.reason, one.where) for one in dropped] == [("malformed", "rows.json:2")]


def test_a_json_file_beside_lines_holds_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(shared(0)))
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert [len(found) for found in read_own_rows(tmp_path)] == [1, 0]


@pytest.mark.parametrize(
    ("heads", "segments"),
    [
        ([("system", "Be brief.")], ["control", "stimulus", "completion"]),
        ([], ["control", "completion"]),
    ],
)
def test_messages_without_segments_are_told_apart_by_their_roles(
    heads: list[tuple[str, str]], segments: list[str], tmp_path: Path
) -> None:
    said = [*heads, ("user", "Hi"), ("assistant", "Hello")]
    line = {"messages": [{"role": r, "content": c} for r, c in said], "questions": QUESTIONS}
    (row,) = read(tmp_path, [line])
    assert [message.segment for message in row.messages] == segments
    with pytest.raises(DataError, match="no field 'segment'"):
        read(tmp_path, [line], segments="given")


def test_a_tools_result_may_be_an_object(tmp_path: Path) -> None:
    row = shared(0)
    row["messages"].append({"role": "tool", "content": {"rain": True}, "segment": "stimulus"})
    (found,) = read(tmp_path, [row])
    assert found.messages[-1].content == '{"rain": true}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"conversations": []}, "rows.shape: sharegpt"),
        ({"instruction": "Sort"}, "rows.shape: alpaca"),
        ({"dialogue": []}, "rows.columns"),
        ({"messages": shared(0)["messages"]}, "rows.questions: written"),
    ],
)
def test_a_row_of_another_layout_names_the_setting(
    line: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, [line])


@pytest.mark.parametrize("block", range(4))
def test_a_mutated_row_is_dropped_and_the_good_ones_are_kept(block: int, tmp_path: Path) -> None:
    for seed in range(50 * block, 50 * (block + 1)):
        check_rows(seed, tmp_path)


SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Aye."}]


def roles_and_segments(row: Conversation) -> list[tuple[str, str, str]]:
    return [(m.role, m.segment, m.content) for m in row.messages]


@pytest.mark.parametrize("shape", ["messages", "sharegpt"])
@pytest.mark.parametrize(
    "system",
    [
        "Be brief.",
        [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        {"parts": [{"text": "Be "}, {"text": "brief."}]},
    ],
)
def test_a_system_prompt_beside_the_messages_is_the_control(
    shape: Any, system: Any, tmp_path: Path
) -> None:
    name, role, content = {
        "messages": ("messages", "role", "content"),
        "sharegpt": ("conversations", "from", "value"),
    }[shape]
    said = [{role: one["role"], content: one["content"]} for one in SAID]
    line = {"system": system, name: said, "questions": QUESTIONS}
    (row,) = read(tmp_path, [line], shape=shape)
    assert roles_and_segments(row) == [
        ("system", "control", "Be brief."),
        ("user", "stimulus", "Hi"),
        ("assistant", "completion", "Aye."),
    ]


def test_a_system_prompt_that_stands_in_the_messages_too_is_there_once(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *SAID]
    line = {"system": "Be brief.", "messages": messages, "questions": QUESTIONS}
    assert len(read(tmp_path, [line])[0].messages) == 3


def test_a_greeting_before_the_first_user_message_is_of_the_control(tmp_path: Path) -> None:
    greeting = {"role": "assistant", "content": "Welcome."}
    (row,) = read(tmp_path, [{"messages": [greeting, *SAID], "questions": QUESTIONS}])
    assert [segment for _, segment, _ in roles_and_segments(row)] == [
        *("control", "control", "completion")
    ]


def test_items_of_openais_responses_are_messages(tmp_path: Path) -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "sh", "arguments": "{}", "id": "f"},
        {"type": "function_call_output", "call_id": "1", "output": ""},
        {"type": "message", "role": "assistant", "content": "Aye.", "status": "completed"},
    ]
    (row,) = read(tmp_path, [{"messages": items, "questions": QUESTIONS}])
    assert [m.role for m in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(row.messages[1].tool_use or "")["tool_calls"][0]["id"] == "1"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "human", "data": {"content": "Hi", "additional_kwargs": {}, "type": "human"}},
        {"type": "human", "content": "Hi", "response_metadata": {}, "example": False},
        {"role": "User", "content": "Hi"},
    ],
)
def test_a_user_is_known_by_other_names(message: dict[str, Any], tmp_path: Path) -> None:
    (row,) = read(tmp_path, [{"messages": [message, SAID[1]], "questions": QUESTIONS}])
    assert [m.role for m in row.messages] == ["user", "assistant"]


def test_empty_fields_are_absent_and_numbers_name_classes(tmp_path: Path) -> None:
    empty = dict.fromkeys(("label", "kind", "category", "split", "control_id"), "")
    questions = [{"question": "Who?", "answer": "A ferryman.", "type": ""}]
    lines = [
        {"messages": SAID, "questions": questions, **empty},
        {"messages": SAID, "questions": questions, "label": 3, "category": 7},
    ]
    rows = read(tmp_path, lines)
    assert [(row.kind, row.category) for row in rows] == [("own", rows[0].category), ("own", "7")]
    assert rows[1].label == "3"
