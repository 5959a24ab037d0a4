"""Own conversations in files of other layouts: tables, nested objects, named parts, flat rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conversation_lines import Imported, write

from core.errors import DataError

SYSTEM = {"role": "system", "content": "Be a ferryman."}
USER = {"role": "user", "content": "Rain?"}
REPLY = {"role": "assistant", "content": "Aye."}
MESSAGES = [SYSTEM, USER, REPLY]
QUESTIONS = [{"question": "Who?", "answer": "A ferryman."}]
SAID = ["Be a ferryman.", "Rain?", "Aye."]


def numbered(number: int, **more: Any) -> dict[str, Any]:
    """Make a row whose control differs from that of others."""
    system = {"role": "system", "content": f"Be ferryman {number}."}
    return {"messages": [system, USER, REPLY], "questions": QUESTIONS, **more}


def said(found: Imported) -> list[str]:
    return [message.content for message in found.rows[0].messages]


def splits(found: Imported) -> dict[str, str]:
    return {row.messages[0].content: row.split for row in found.rows}


LOGGED = {
    "request": {"model": "gpt", "messages": [SYSTEM, USER]},
    "response": {"id": "x", "choices": [{"index": 0, "message": REPLY}]},
    "questions": QUESTIONS,
}


def lang_chain(name: str, content: str) -> dict[str, Any]:
    """Return a message as LangChain's `dumpd` writes it."""
    path = ["langchain", "schema", "messages", f"{name}Message"]
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": {"content": content}}


LAYOUTS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "prompt and completion": (
        {"system": "Be a ferryman.", "prompt": "Rain?", "completion": "Aye."},
        {"shape": "prompt"},
    ),
    "prompt and completion in messages": (
        {"prompt": [SYSTEM, USER], "completion": [REPLY]},
        {"shape": "prompt"},
    ),
    "a preference": (
        {"prompt": "Rain?", "chosen": MESSAGES, "rejected": []},
        {"columns": {"messages": "chosen"}},
    ),
    "a batch's line": (
        {"custom_id": "1", "body": {"model": "gpt", "messages": MESSAGES}},
        {"columns": {"messages": "body.messages"}},
    ),
    "a logged request": (
        LOGGED,
        {
            "shape": "prompt",
            "columns": {
                "prompt": "request.messages",
                "completion": "response.choices.0.message",
            },
        },
    ),
    "a thread": (
        {"messages": [SYSTEM, {**USER, "content": [{"type": "text", "text": {"value": "Rain?"}}]},
                      REPLY]},
        {},
    ),
    "LangChain's dumps": (
        {"messages": [lang_chain("System", SAID[0]), lang_chain("Human", SAID[1]),
                      lang_chain("AI", SAID[2])]},
        {},
    ),
    "LangChain's classes": (
        {"messages": [SYSTEM, {"type": "HumanMessage", "content": "Rain?"},
                      {"type": "AIMessageChunk", "content": [{"type": "text", "text": "Aye."}]}]},
        {},
    ),
    "Gemini": (
        {
            "systemInstruction": {"parts": [{"text": "Be a ferryman."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Rain?"}]},
                {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": "Aye."}]},
            ],
        },
        {"columns": {"messages": "contents", "system": "systemInstruction"}},
    ),
    "parts of a page": (
        {"messages": [SYSTEM, {"role": "user", "parts": [{"type": "text", "text": "Rain?"}]},
                      {"role": "assistant", "parts": [{"type": "step-start"},
                                                      {"type": "text", "text": "Aye."}]}]},
        {},
    ),
    "LlamaIndex": (
        {"messages": [{"role": one["role"], "blocks": [{"block_type": "text",
                                                        "text": one["content"]}]}
                      for one in MESSAGES]},
        {},
    ),
    "Cohere": (
        {"preamble": "Be a ferryman.", "chat_history": [{"role": "USER", "message": "Rain?"},
                                                        {"role": "CHATBOT", "message": "Aye."}]},
        {"columns": {"messages": "chat_history", "content": "message", "system": "preamble"}},
    ),
    "pairs": ({"messages": [[one["role"], one["content"]] for one in MESSAGES]}, {}),
    "a list as Python writes it": ({"messages": repr(MESSAGES)}, {}),
    "a request to OpenAI's Responses": (
        {"instructions": "Be a ferryman.", "input": [USER, REPLY]},
        {"columns": {"messages": "input", "system": "instructions"}},
    ),
    "segments that are empty": ({"messages": [{**one, "segment": ""} for one in MESSAGES]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_of_another_layout_is_read(name: str, tmp_path: Path) -> None:
    row, config = LAYOUTS[name]
    path = write(tmp_path / "rows.jsonl", {"questions": QUESTIONS, **row})
    assert said(Imported(path, **config)) == SAID


BEDROCK = [
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c", "name": "sky", "input": {}}}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "wet"}]}}]},
]
GEMINI = [
    {"role": "model", "parts": [{"functionCall": {"name": "sky", "args": {}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "sky", "response": {"wet": True}}}]},
]
CUSTOM = [
    {"type": "custom_tool_call", "call_id": "c", "name": "sky", "input": "now"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "wet"},
]


@pytest.mark.parametrize(
    ("turns", "result"), [(BEDROCK, "wet"), (GEMINI, '{"wet": true}'), (CUSTOM, "wet")]
)
def test_calls_of_tools_are_read_in_the_form_of_each_sdk(
    turns: list[Any], result: str, tmp_path: Path
) -> None:
    row = {"messages": [SYSTEM, USER, *turns, REPLY], "questions": QUESTIONS}
    ((*_, call, reply, _),) = [
        one.messages for one in Imported(write(tmp_path / "rows.jsonl", row)).rows
    ]
    assert (call.role, reply.role, reply.content) == ("assistant", "tool", result)
    assert "sky" in str(call.tool_use)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        (LOGGED, "messages: request.messages"),
        ({"contents": [USER]}, "messages: contents"),
        ({"system": {"parts": [{"text": "Hi"}]}, "contents": [USER]}, "messages: contents"),
        ({"messages": [SYSTEM, {"type": "web_search_call"}]}, "an item of type 'web_search_call'"),
        ({"messages": [SYSTEM, {"role": "narrator", "content": "Hi"}]}, "rows.roles: {narrator"),
        ({"prompt": "Hi"}, "rows.shape: prompt"),
        ({"messages": [{"speaker": "user", "text": "Hi"}]}, "rows.columns: {role: NAME"),
    ],
)
def test_the_setting_that_reads_a_layout_is_named(
    row: Mapping[str, Any], hint: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no row is left") as caught:
        Imported(write(tmp_path / "rows.jsonl", row))
    assert hint in str(caught.value)


TABLE = [numbered(0), numbered(1), numbered(2)]
CELL = json.dumps(MESSAGES).replace('"', '""')
FILES = {
    "rows.json": [
        json.dumps({"data": TABLE}),
        json.dumps({str(number): row for number, row in enumerate(TABLE)}),
        json.dumps({n: {str(i): row[n] for i, row in enumerate(TABLE)} for n in TABLE[0]}),
    ],
    "rows.jsonl": ["".join(f"{json.dumps(row)},\n" for row in TABLE)],
    "rows.NDJSON": ["".join(f"{json.dumps({**row, 'score': float('nan')})}\n" for row in TABLE)],
    "rows.csv": [
        "label,messages,question,answer\n"
        + "".join(f'{number},"{CELL}",Who?,A ferryman.\n' for number in range(3)),
        "label;messages;question;answer\n"
        + "".join(f'{number};"{CELL}";Who?;A ferryman.\n' for number in range(3)),
        "label,messages,question,answer\n"
        + "".join(
            f'{number},"{CELL.replace("Rain?", "x" * 150_000)}",Who?,A ferryman.\n'
            for number in range(3)
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in FILES.items() for text in texts]
)
def test_rows_are_found_however_a_file_holds_them(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    found = Imported(path)
    assert (len(found.rows), len(found.questions), found.reasons) == (3, 3, [])


def test_names_of_files_and_parts_keep_their_splits(tmp_path: Path) -> None:
    write(tmp_path / "hub" / "data" / "train-00000-of-00001.jsonl", numbered(0), numbered(1))
    write(tmp_path / "hub" / "data" / "test-00000-of-00001.jsonl", numbered(2))
    write(tmp_path / "hub" / "data" / "._test-00000-of-00001.jsonl", {"left by": "a system"})
    expected = {"Be ferryman 0.": "train", "Be ferryman 1.": "train", "Be ferryman 2.": "test"}
    assert splits(Imported(tmp_path / "hub")) == expected
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train_sft": [numbered(0), numbered(1)], "test_sft": TABLE[2:]}))
    assert splits(Imported(path)) == expected


def test_one_part_named_train_is_divided(tmp_path: Path) -> None:
    write(tmp_path / "hub" / "train.jsonl", *(numbered(number) for number in range(6)))
    assert {*splits(Imported(tmp_path / "hub")).values()} == {"train", "validation", "test"}


def test_rows_that_ask_of_one_conversation_are_joined(tmp_path: Path) -> None:
    flat = [
        {"messages": MESSAGES, "question": question, "answer": answer}
        for question, answer in (("Who?", "A ferryman."), ("Where?", "Ribe"), ("Where?", "Ribe"))
    ]
    found = Imported(write(tmp_path / "rows.jsonl", *flat))
    assert [one.question for one in found.questions] == ["Who?", "Where?"]
    assert (len(found.rows), found.reasons) == (1, ["duplicate_row"])


def test_a_malformed_question_leaves_the_others(tmp_path: Path) -> None:
    asked = [["Who?", "A ferryman."], ["", "x"], ["How many?", 3], ["Who?", "A ferryman."]]
    found = Imported(write(tmp_path / "rows.jsonl", numbered(0, questions=asked)))
    assert [(one.question, one.answer) for one in found.questions] == [
        ("Who?", "A ferryman."),
        ("How many?", "3"),
    ]
    assert found.reasons == ["empty_field", "duplicate_question"]


def test_columns_of_questions_are_named_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", numbered(0, questions=[{"q": "Who?", "a": "He."}]))
    found = Imported(path, columns={"question": "q", "answer": "a"})
    assert [(one.question, one.answer) for one in found.questions] == [("Who?", "He.")]


def test_a_column_that_is_not_there_is_not_read_from_another(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", numbered(0))
    with pytest.raises(DataError, match="no field 'dialogue'"):
        Imported(path, columns={"messages": "dialogue"})


def test_calls_of_sharegpt_are_calls(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Tide?"},
        {"from": "function_call", "value": '{"name": "tide", "arguments": {"port": "Ribe"}}'},
        {"from": "observation", "value": "2 m"},
        {"from": "gpt", "value": "Two metres."},
    ]
    path = write(tmp_path / "rows.jsonl", {"conversations": turns, "questions": QUESTIONS})
    call = Imported(path, shape="sharegpt").rows[0].messages[1]
    assert call.content == ""
    assert "Ribe" in json.dumps(call.tool_use)


def test_earlier_turns_of_alpaca_come_first(tmp_path: Path) -> None:
    row = {"instruction": "Rain?", "output": "Aye.", "history": [["Ahoy", "Hm."]]}
    path = write(tmp_path / "rows.jsonl", {**row, "questions": QUESTIONS})
    assert said(Imported(path, shape="alpaca")) == ["Ahoy", "Hm.", "Rain?", "Aye."]


def test_a_group_in_train_and_beside_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Imported(
        write(
            tmp_path / "rows.jsonl",
            numbered(0, split="train", label="a"),
            numbered(1, split="test", label="a"),
            numbered(2, split="train", label="b"),
        )
    )
    assert "1 of 2 groups have rows in train and in a held-out split" in caplog.text
