"""The tables: every text comes back as it was, and what is no such table is refused."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.records.table_files import (
    CONVERSATION_SCHEMA,
    read_conversations,
    read_dropped,
    read_questions,
    write_conversations,
    write_dropped,
    write_questions,
)
from core.records.tables import Conversation, Dropped, Message, Question, control_id, example_id

ODD = [
    "",
    "\x00 nul and \x1b[31m escape",
    "emoji 👩‍👩‍👧‍👦 and flags 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "quotes \" ' ` « and braces {{ x }} {% y %} <|im_end|> \\n \\",
    "right to left עִבְרִית and \u202eoverride\u202c",
    "lines\r\nand\ttabs\u2028and separators",
    "x" * 20_000,
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 e\u0301 \ufeff \ufffe",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(ODD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.builds(
    Message,
    role=TEXT,
    content=TEXT,
    segment=st.sampled_from(["template", "control", "stimulus", "completion"]),
)
CONVERSATION = st.builds(
    Conversation,
    example_id=TEXT,
    control_id=TEXT,
    group_id=TEXT,
    kind=TEXT,
    category=TEXT,
    label=TEXT,
    view=st.sampled_from(["control", "stimulus", "stimulus_completion", "system"]),
    split=st.sampled_from(["train", "validation", "test", "test_ood"]),
    source=TEXT,
    messages=st.lists(MESSAGES, max_size=4).map(tuple),
    completion_origin=st.none() | TEXT,
    flags=st.lists(TEXT, max_size=2).map(tuple),
    provenance=st.dictionaries(TEXT, JSON, max_size=3),
)
QUESTION = st.builds(
    Question,
    example_id=TEXT,
    question=TEXT,
    answer=TEXT,
    type=st.none() | TEXT,
    flags=st.lists(TEXT, max_size=2).map(tuple),
    provenance=st.dictionaries(TEXT, JSON, max_size=3),
)


def conversation(**changed: Any) -> Conversation:
    base = Conversation(
        example_id="e",
        control_id="c",
        group_id="g",
        kind="persona",
        category="job",
        label="persona-job-x",
        view="stimulus",
        split="train",
        source="import",
        messages=(
            Message(role="user", content="Be x.", segment="control"),
            Message(role="assistant", content="I am.", segment="control"),
            Message(role="user", content="Hi.", segment="stimulus"),
        ),
    )
    return dataclasses.replace(base, **changed)


@settings(deadline=None, max_examples=40)
@given(st.lists(CONVERSATION, max_size=4))
def test_conversations_come_back_as_they_were(rows: list[Conversation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        write_conversations(path, rows)
        assert read_conversations(path) == rows


@settings(deadline=None, max_examples=40)
@given(st.lists(QUESTION, max_size=4))
def test_questions_come_back_as_they_were(rows: list[Question]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        write_questions(path, rows)
        assert read_questions(path) == rows


@pytest.mark.parametrize("text", ODD)
def test_dropped_rows_keep_odd_text(text: str, tmp_path: Path) -> None:
    rows = [Dropped(reason="empty", where="a.json[1]", detail=text, raw=text)]
    write_dropped(tmp_path / "d.parquet", rows)
    assert read_dropped(tmp_path / "d.parquet") == rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [conversation(provenance={"b": 1, "a": 2}), conversation(flags=("x",))]
    write_conversations(tmp_path / "a", rows)
    rows[0] = conversation(provenance={"a": 2, "b": 1})
    write_conversations(tmp_path / "b", rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_conversations(path, [conversation()])
    with pytest.raises(UnicodeEncodeError):
        write_conversations(path, [conversation(label="\ud800")])
    with pytest.raises(ValueError, match="Out of range float"):
        write_conversations(path, [conversation(provenance={"x": float("nan")})])
    assert read_conversations(path) == [conversation()]


def test_the_control_is_its_first_message_without_the_acknowledgement() -> None:
    assert conversation().control == "Be x."


def test_other_writers_large_strings_are_read(tmp_path: Path) -> None:
    write_conversations(tmp_path / "a", [conversation()])
    table = pq.read_table(tmp_path / "a")
    label = table.column_names.index("label")
    pq.write_table(
        table.set_column(label, "label", table["label"].cast(pa.large_string())), tmp_path / "b"
    )
    assert read_conversations(tmp_path / "b") == [conversation()]


def test_columns_of_others_are_passed_over(tmp_path: Path) -> None:
    write_conversations(tmp_path / "a", [conversation()])
    table = pq.read_table(tmp_path / "a").append_column("note", [["mine"]])
    pq.write_table(table, tmp_path / "b")
    assert read_conversations(tmp_path / "b") == [conversation()]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet: no such file; expected a Parquet table\.$"):
        read_conversations(tmp_path / "a.parquet")


@pytest.mark.parametrize("data", [b"", b"not parquet at all", b"PAR1" + b"\x00" * 40 + b"PAR1"])
def test_what_is_no_parquet_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match="not a readable Parquet file") as caught:
        read_questions(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    write_conversations(tmp_path / "a", [conversation()])
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_conversations(tmp_path / "a")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_conversations(tmp_path)


def changed_table(path: Path, name: str, column: pa.Array) -> None:
    write_conversations(path, [conversation()])
    table = pq.read_table(path)
    index = table.column_names.index(name)
    pq.write_table(table.set_column(index, name, column), path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_conversations(tmp_path / "a", [conversation()])
    pq.write_table(pq.read_table(tmp_path / "a").drop_columns(["split"]), tmp_path / "a")
    with pytest.raises(DataError, match="column 'split' is missing; found"):
        read_conversations(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("label", pa.array([7]), "column 'label' holds int64; expected string"),
        ("label", pa.array([None], pa.string()), "column 'label' has empty cells"),
        ("messages", pa.array(["[]"]), "column 'messages' holds string; expected list"),
        ("flags", pa.array([{"a": 1}]), "column 'flags' holds struct"),
        ("provenance", pa.array(["{"]), "provenance of e is not JSON"),
        ("provenance", pa.array(["[]"]), "provenance of e is a list; expected an object"),
    ],
)
def test_a_column_of_another_form_is_refused(
    name: str, column: pa.Array, words: str, tmp_path: Path
) -> None:
    changed_table(tmp_path / "a", name, column)
    with pytest.raises(DataError, match=words):
        read_conversations(tmp_path / "a")


def test_the_completion_origin_may_be_empty_of_type(tmp_path: Path) -> None:
    changed_table(tmp_path / "a", "completion_origin", pa.nulls(1))
    assert read_conversations(tmp_path / "a")[0].completion_origin is None


def test_the_fields_are_the_columns() -> None:
    assert list(Conversation.__slots__) == CONVERSATION_SCHEMA.names


def test_ids_are_stable_and_depend_on_every_part() -> None:
    messages = conversation().messages
    ids = {
        example_id("a", "stimulus", messages),
        example_id("b", "stimulus", messages),
        example_id("a", "system", messages),
        example_id("a", "stimulus", messages[:-1]),
        example_id("a", "stimulus", messages[::-1]),
    }
    assert len(ids) == 5
    assert control_id("persona", "Be x.") != control_id("goal", "Be x.")
    assert control_id("persona", "Be x.") == "7b13d4a2ed81ddb9"


def test_datasets_opens_a_table_as_it_is(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_conversations(tmp_path / "a.parquet", [conversation()])
    rows = datasets.Dataset.from_parquet(
        str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert rows[0]["messages"][0] == {"role": "user", "content": "Be x.", "segment": "control"}
