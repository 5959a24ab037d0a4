"""Transcripts of agents as conversations of one's own: what is kept of them, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tool_turns import TRANSCRIPT, WEATHER, call, line
from typer.testing import CliRunner

from core.errors import DataError
from core.records.table_files import (
    CONVERSATION_SCHEMA,
    read_conversations,
    read_questions,
    write_conversations,
)
from core.records.tables import Conversation, Message, example_id
from core.records.tool_use import for_template, message_text, offered_tools
from generators.exchange.config import ImportConfig
from generators.exchange.conversation_files import (
    import_own_conversations,
    import_own_questions,
    messages_digest,
    read_own_rows,
)
from generators.exchange.exporting import to_latentqa, write_datasets, write_jsonl
from generators.exchange.parquet import write_parquet
from generators.quality.describe import describe_dataset
from latentqa.commands.stored.data import app

PLAIN = [
    {"role": "user", "content": "Be a ferryman.", "segment": "control"},
    {"role": "user", "content": "Will it rain?", "segment": "stimulus"},
]
DOCS = (Path(__file__).parents[3] / "docs/data.md").read_text()


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(json.dumps(one) for one in lines) + "\n")
    return path


def messages_of(folder: Path, messages: Any = TRANSCRIPT, **more: Any) -> tuple[Message, ...]:
    ((own,), dropped) = read_own_rows(write(folder / "a.jsonl", line(messages, **more)))
    assert not dropped
    return own.row.messages


def imported(folder: Path, *lines: Any) -> list[Conversation]:
    """Return the table of these lines, with their questions beside it, in `folder`/in."""
    source = write(folder / "a.jsonl", *lines)
    import_own_conversations(source, folder / "in/conversations", config=ImportConfig())
    import_own_questions(source, folder / "in/conversations", folder / "in/questions")
    return read_conversations(folder / "in/conversations/conversations.parquet")


def calling(tool_calls: Any, **more: Any) -> list[dict[str, Any]]:
    """Make a transcript whose assistant makes these calls."""
    return [*TRANSCRIPT[:2], TRANSCRIPT[2] | {"tool_calls": tool_calls} | more, *TRANSCRIPT[3:]]


def test_a_template_is_given_calls_with_arguments_as_objects_in_their_order(
    tmp_path: Path,
) -> None:
    messages = messages_of(tmp_path, tools=[WEATHER])
    assert offered_tools(messages) == [WEATHER]
    found = [for_template(message) for message in messages]
    assert found[0] == {"role": "system", "content": "You are terse."}
    assert found[2] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": f"c{n}"} | call({"city": city, "at": hour})
            for n, city, hour in ((1, "Oslo", 9), (2, "Bergen", 7))
        ],
    }
    assert list(found[2]["tool_calls"][0]["function"]["arguments"]) == ["city", "at"]
    assert found[3] == {
        "role": "tool",
        "content": '{"rain": true}',
        "tool_call_id": "c1",
        "name": "weather",
    }


def test_the_table_keeps_calls_and_tools(tmp_path: Path) -> None:
    first, second = imported(tmp_path, line(tools=[WEATHER]), line(PLAIN))
    assert first.messages == messages_of(tmp_path, tools=[WEATHER])
    assert first.view == "stimulus_completion"
    assert all(message.tool_use is None for message in second.messages)
    questions = read_questions(tmp_path / "in/questions/questions.parquet")
    assert [q.example_id for q in questions] == [first.example_id, second.example_id]


def test_a_table_without_calls_has_the_columns_and_digests_that_it_always_had(
    tmp_path: Path,
) -> None:
    (row,) = imported(tmp_path, line(PLAIN, label="ferry"))
    table = tmp_path / "in/conversations/conversations.parquet"
    assert pq.read_schema(table).remove_metadata() == CONVERSATION_SCHEMA
    # of the time before there were calls
    assert row.example_id == "1d8fa9bff1fd18e3"


@pytest.mark.parametrize(
    "other",
    [
        {"tools": [WEATHER]},
        {"messages": calling([call({"city": "Oslo", "at": 9}, id="c1")])},
        {"messages": calling([call(a, id=f"c{n}") for n, a in enumerate(
            ({"at": 9, "city": "Oslo"}, {"city": "Bergen", "at": 7}), 1)])},
        {"messages": [*TRANSCRIPT[:3], TRANSCRIPT[3] | {"tool_call_id": "c2"}, *TRANSCRIPT[4:]]},
    ],
    ids=["tools", "calls", "order of arguments", "which call is answered"],
)  # fmt: skip
def test_whatever_is_different_of_tools_is_another_example(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    def identity(**changes: Any) -> tuple[str, str]:
        messages = messages_of(tmp_path, **changes)
        return example_id("l", "system", messages), messages_digest(tmp_path / "a.jsonl")

    own = identity()
    assert all(a != b for a, b in zip(own, identity(**other), strict=True))
    assert own == identity()


@pytest.mark.parametrize("arguments", [{}, "", "{}", None])
def test_a_call_may_have_no_arguments(tmp_path: Path, arguments: Any) -> None:
    (_, _, made, *_) = messages_of(tmp_path, calling([call(arguments)]))
    assert for_template(made)["tool_calls"] == [call({})]


BAD = [
    (calling("weather"), "malformed_tool_call", "messages[2]: 'tool_calls' is a string"),
    (calling([call("{")]), "malformed_tool_call", "tool_calls[0].function.arguments: not JSON"),
    (calling([call("[1]")]), "malformed_tool_call", "arguments is a list; expected an object"),
    (calling([call('{"a": 1, "a": 2}')]), "malformed_tool_call", "an object that repeats a key"),
    (calling([call('{"a": 1e999}')]), "not_finite", "arguments: a number is beyond"),
    (calling([call('{"a": "\\ud800"}')]), "invalid_unicode", "arguments: half a surrogate pair"),
    (calling([call({}, name=" ")]), "malformed_tool_call", "function.name is empty"),
    (calling([{"id": "c"}]), "malformed_tool_call", "tool_calls[0].function is null"),
    (calling([call({}, type="custom")]), "malformed_tool_call", "type 'custom'; expected"),
    ([*PLAIN, PLAIN[1] | {"tool_calls": [call({})]}], "unknown_field",
     "messages[2]: 'tool_calls' in a message of role 'user'; expected 'assistant'"),
    ([*PLAIN, PLAIN[1] | {"tool_call_id": "c"}], "unknown_field", "expected 'tool'"),
    ([TRANSCRIPT[2] | {"segment": "control"}, PLAIN[1]], "empty_field", "the control begins"),
]  # fmt: skip


def test_a_malformed_call_is_told_by_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *(line(messages) for messages, _, _ in BAD))
    rows, dropped = read_own_rows(file)
    assert rows == []
    for one, (_, reason, words) in zip(dropped, BAD, strict=True):
        assert (one.reason, words in one.detail) == (reason, True), one
    assert all(f"`{reason}`" in DOCS for _, reason, _ in BAD)


def test_tools_that_are_no_list_of_definitions_are_told(tmp_path: Path) -> None:
    _, dropped = read_own_rows(
        write(tmp_path / "a.jsonl", line(tools="weather"), line(tools=["weather"]))
    )
    assert [(one.reason, one.detail.partition(";")[0]) for one in dropped] == [
        ("malformed_tool_call", "'tools' is a string"),
        ("not_an_object", "tools[0]: a string"),
    ]


def test_empty_lists_of_calls_and_tools_are_none(tmp_path: Path) -> None:
    empty = [PLAIN[0] | {"tool_calls": []}, *PLAIN[1:]]
    (own,), dropped = read_own_rows(write(tmp_path / "a.jsonl", line(empty, tools=[])))
    (plain,), _ = read_own_rows(write(tmp_path / "b.jsonl", line(PLAIN)))
    assert dropped == []
    assert own.row.messages == plain.row.messages


def test_a_damaged_column_is_told_with_its_row(tmp_path: Path) -> None:
    rows = imported(tmp_path, line())
    table = tmp_path / "in/conversations/conversations.parquet"
    whole = pq.read_table(table)
    place = whole.column_names.index("tool_use")
    for cell, words in ((["{}"], "shorter"), ([None] * 5 + ["["], "Expecting"), (["3"] * 6, "no")):
        column = pa.array([cell], pa.list_(pa.string()))
        pq.write_table(whole.set_column(place, "tool_use", column), table)
        with pytest.raises(DataError, match=f"tool_use of {rows[0].example_id} .*{words}"):
            read_conversations(table)


def test_what_is_exported_as_json_lines_is_imported_again_as_it_was(tmp_path: Path) -> None:
    rows = imported(tmp_path, line(tools=[WEATHER]), line(PLAIN))
    questions = read_questions(tmp_path / "in/questions/questions.parquet")
    write_jsonl(tmp_path / "out.jsonl", rows, questions)
    records = [json.loads(one) for one in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "tools" not in records[1]
    again, dropped = read_own_rows(tmp_path / "out.jsonl")
    assert not dropped
    assert [own.row.messages for own in again] == [row.messages for row in rows]


def test_tables_for_others_have_a_column_of_tools_in_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset, load_from_disk

    from generators.exchange import parquet

    monkeypatch.setattr(parquet, "SHARD_ROWS", 1)
    rows = imported(tmp_path, *(line(label=f"a{n}") for n in range(3)), line(PLAIN, label="b"))
    questions = read_questions(tmp_path / "in/questions/questions.parquet")
    wanted = {row.example_id: [m.tool_use for m in row.messages] for row in rows}
    write_parquet(tmp_path / "parquet", rows, questions, name="n")
    assert "| `tool_use` |" in (tmp_path / "parquet/README.md").read_text()
    write_datasets(tmp_path / "datasets", rows, questions)
    loaded = load_dataset(str(tmp_path / "parquet"), cache_dir=str(tmp_path / "cache"))
    for found in (loaded, load_from_disk(str(tmp_path / "datasets"))):
        cells = {r["example_id"]: r["tool_use"] for part in found.values() for r in part}
        assert len(cells) == 4
        assert all(
            cell == (wanted[example] if any(wanted[example]) else None)
            for example, cell in cells.items()
        )


def test_the_published_layout_has_no_place_for_calls_and_says_so(tmp_path: Path) -> None:
    ending = TRANSCRIPT[2] | {"segment": "completion"}
    acknowledged = [PLAIN[0], TRANSCRIPT[5] | {"segment": "control"}, PLAIN[1], ending]
    (row,) = imported(tmp_path, line(acknowledged))
    with pytest.raises(DataError, match=f"conversation {row.example_id} .*calls of tools have no"):
        to_latentqa([row], [])


def test_calls_count_as_what_is_said(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, line())
    call_lines = message_text(row.messages[2])
    assert call_lines.splitlines()[1] == (
        '{"name": "weather", "arguments": {"city": "Bergen", "at": 7}}'
    )
    numbers = describe_dataset([row], [])
    others = sum(len(m.content) for m in row.messages if m.segment == "stimulus")
    assert numbers["characters"]["stimulus"]["max"] == others + len(call_lines)


def test_show_has_calls_and_who_answers(tmp_path: Path) -> None:
    imported(tmp_path, line())
    runner = CliRunner()
    shown = runner.invoke(app, ["show", str(tmp_path / "in")], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert 'calls {"name": "weather", "arguments": {"city": "Oslo", "at": 9}}' in shown.output
    assert "tool weather · stimulus" in shown.output
    page = tmp_path / "rows.html"
    made = runner.invoke(app, ["show", str(tmp_path / "in"), "--out", str(page)])
    assert made.exit_code == 0, made.output
    assert "calls {&#34;name&#34;: &#34;weather&#34;" in page.read_text()
    assert "tool weather · stimulus" in page.read_text()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = imported(tmp_path, line(tools=[WEATHER]), line(PLAIN))
    for name in ("a", "b"):
        write_conversations(tmp_path / name, rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
