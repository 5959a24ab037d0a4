"""Files of own conversations as spreadsheets, other programs and accidents leave them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conversation_lines import Imported, line, write
from pydantic import ValidationError

from core.errors import DataError
from core.records.table_files import read_conversations, write_conversations
from generators.exchange.config import RowsConfig

ROW = {"messages": [{"role": "user", "content": "Ahoy", "segment": "control"}]}
QUESTIONS = [{"question": "Who?", "answer": "He."}]


def table(text: str, tmp_path: Path) -> Imported:
    path = tmp_path / "rows.csv"
    path.write_text(text, newline="")
    return Imported(path, shape="prompt")


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nprompt;completion;question;answer\r\nRain?;Aye.;Who?;He.\r\n",
        "prompt, completion ,question,answer\nRain?,Aye.,Who?,He.\n",
        "prompt,completion,question,answer,,\nRain?,Aye.,Who?,He.,,\n",
    ],
)
def test_tables_of_spreadsheets_are_read(text: str, tmp_path: Path) -> None:
    assert [m.content for m in table(text, tmp_path).rows[0].messages] == ["Rain?", "Aye."]


def test_a_row_with_more_cells_than_the_head_is_none(tmp_path: Path) -> None:
    text = "prompt,completion,question,answer\nRain, or not?,Aye.,Who?,He.\nRain?,Aye.,Who?,He.\n"
    found = table(text, tmp_path)
    assert [m.content for m in found.rows[0].messages] == ["Rain?", "Aye."]
    assert found.reasons == ["malformed"]
    assert "5 cells, expected the 4 of the head" in found.dropped[0].detail


def test_a_head_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the head names 'prompt' twice"):
        table("prompt,prompt,question,answer\nRain?,Aye.,Who?,He.\n", tmp_path)


def test_marks_within_joined_files_are_no_part_of_a_line(tmp_path: Path) -> None:
    rows = [line([{**ROW["messages"][0], "content": f"Ahoy {i}"}]) for i in range(3)]
    path = write(tmp_path / "rows.jsonl", *("\ufeff" + json.dumps(row) for row in rows))
    assert len(Imported(path).rows) == 3


def test_names_of_files_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate((b"\xff.jsonl", b"\xfe.jsonl")):
        said = [{**ROW["messages"][0], "content": f"Ahoy {number}"}]
        write(folder / os.fsdecode(name), line(said), "{")
    found = Imported(folder)
    assert [row.provenance["file"] for row in found.rows] == [r"\xfe.jsonl", r"\xff.jsonl"]
    assert [one.where for one in found.dropped] == [r"\xfe.jsonl:2", r"\xff.jsonl:2"]


def test_what_is_no_regular_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="no regular file"):
        Imported(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"splits": 5}', "x"])
def test_what_datasets_did_not_save_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read as a dataset"):
        Imported(tmp_path / "saved")


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "rows.parquet"
    own = {"messages": [ROW["messages"]], "questions": [QUESTIONS]}
    pq.write_table(pa.table({**own, **columns}), path)
    return path


def test_binary_columns_of_text_are_text(tmp_path: Path) -> None:
    cell = json.dumps(ROW["messages"]).encode()
    found = Imported(parquet(tmp_path, messages=[cell]))
    assert found.rows[0].messages[0].content == "Ahoy"


_NO_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**60], pa.timestamp("us")),
        pa.array([2**30], pa.date32()),
        pa.array([1], pa.timestamp("ms", tz="Nowhere/Land")),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
        _NO_TEXT,
    ],
    ids=["time", "date", "zone", "struct", "text"],
)
def test_a_column_that_cannot_be_read_is_named(values: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the values of column 'odd' cannot be read"):
        Imported(parquet(tmp_path, odd=values))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array([ROW["messages"]]), pa.array([ROW["messages"]]), pa.array([QUESTIONS])]
    twice = pa.Table.from_arrays(columns, names=["messages", "messages", "questions"])
    pq.write_table(twice, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="two columns are called 'messages'"):
        Imported(tmp_path / "rows.parquet")


def test_a_table_of_ours_with_a_text_that_is_none_is_refused_in_a_line(tmp_path: Path) -> None:
    write_conversations(tmp_path / "c.parquet", Imported(write(tmp_path / "r.jsonl", line())).rows)
    whole = pq.read_table(tmp_path / "c.parquet")
    place = whole.schema.get_field_index("label")
    pq.write_table(whole.set_column(place, whole.schema.field(place), _NO_TEXT), tmp_path / "d")
    with pytest.raises(DataError, match="a text in it is not UTF-8"):
        read_conversations(tmp_path / "d")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"messages": "a", "questions": "a"}, "messages and questions are both column 'a'"),
        ({"role": "who", "content": "who"}, "role and content are both column 'who'"),
        ({"label": " "}, "label is column ' '"),
    ],
)
def test_two_fields_are_not_one_column(columns: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RowsConfig(columns=columns)
