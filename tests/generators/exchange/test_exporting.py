"""Export: an import's files come back, and the other forms hold the same rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import FIELDS, published, qa, row, write_folder

from core.errors import DataError
from core.records.table_files import read_conversations, read_dropped, read_questions
from core.records.tables import Conversation, Dropped, Question
from generators.exchange.config import ImportConfig
from generators.exchange.exporting import (
    to_latentqa,
    to_records,
    write_datasets,
    write_jsonl,
    write_latentqa,
)
from generators.exchange.importing import import_conversations, import_questions

Tables = tuple[list[Conversation], list[Question], list[Dropped]]


def imported(folder: Path, out: Path, **config: Any) -> Tables:
    import_conversations(folder, out / "c", config=ImportConfig(**config))
    import_questions(folder, out / "c", out / "q")
    return (
        read_conversations(out / "c" / "conversations.parquet"),
        read_questions(out / "q" / "questions.parquet"),
        read_dropped(out / "c" / "dropped.parquet") + read_dropped(out / "q" / "dropped.parquet"),
    )


def test_an_imports_files_come_back_byte_for_byte(tmp_path: Path) -> None:
    published(tmp_path / "in")
    write_latentqa(tmp_path / "back", *imported(tmp_path / "in", tmp_path))
    for path in (tmp_path / "in").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
LABEL = st.tuples(st.sampled_from(["goal", "persona", "sqa"]), TEXT).map("-".join)


@st.composite
def folders(draw: st.DrawFn) -> dict[str, Any]:
    """Sound files: any texts, several controls a label, extra fields, orphans, views left out."""
    labels = draw(st.lists(LABEL, min_size=1, max_size=5, unique=True))
    pairs = st.lists(
        st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=3, unique_by=tuple
    )
    files: dict[str, Any] = {"qa": {label: draw(pairs) for label in labels}}
    extra = st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=2)
    for view in draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, unique=True)):
        names = FIELDS[view]
        texts = draw(
            st.lists(
                st.tuples(st.sampled_from(labels), *[TEXT for _ in names]),
                min_size=1,
                max_size=5,
                unique=True,
            )
        )
        files[view] = [
            dict(zip(("label", *names), row, strict=True))
            | {k: v for k, v in draw(extra).items() if k not in ("label", *names)}
            for row in texts
        ]
    return files


@settings(deadline=None, max_examples=40)
@given(files=folders())
def test_any_sound_folder_comes_back(
    files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("export")
    write_folder(tmp_path / "in", **files)
    back = to_latentqa(*imported(tmp_path / "in", tmp_path))
    assert back == {f"{name}.json": value for name, value in files.items()}
    assert list(back["qa.json"]) == list(files["qa"])


def test_unknown_fields_come_back(tmp_path: Path) -> None:
    rows = [row("control", "persona-job-x", rating=[1.5, None])]
    write_folder(tmp_path / "in", qa=qa("persona-job-x"), control=rows)
    assert to_latentqa(*imported(tmp_path / "in", tmp_path))["control.json"] == rows


def test_malformed_rows_stay_out(tmp_path: Path) -> None:
    rows = [row("control", "persona-job-x"), {"label": "persona-job-x"}]
    write_folder(tmp_path / "in", qa=qa("persona-job-x"), control=rows)
    back = to_latentqa(*imported(tmp_path / "in", tmp_path))
    assert back["control.json"] == rows[:1]


def test_a_limited_import_gives_its_own_rows_back(tmp_path: Path) -> None:
    published(tmp_path / "in")
    back = to_latentqa(*imported(tmp_path / "in", tmp_path, limit=4))
    assert [len(back[f"{view}.json"]) for view in FIELDS] == [4, 4, 4, 4]


def test_rows_from_elsewhere_follow_in_their_own_order(tmp_path: Path) -> None:
    published(tmp_path / "in")
    conversations, questions, dropped = imported(tmp_path / "in", tmp_path)
    made = [
        dataclasses.replace(
            conversations[0], example_id=f"new{i}", label=f"persona-new-{i}", provenance={}
        )
        for i in range(3)
    ]
    asked = [Question(example_id=f"new{i}", question=f"q{i}", answer="a") for i in range(3)]
    back = to_latentqa([*made, *conversations], [*asked, *questions], dropped)
    assert [r["label"] for r in back["control.json"][-3:]] == [r.label for r in made]
    last = list(back["qa.json"].items())[-3:]
    assert last == [(f"persona-new-{i}", [[f"q{i}", "a"]]) for i in range(3)]


def test_a_conversation_of_another_form_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "in")
    conversations, questions, _ = imported(tmp_path / "in", tmp_path)
    odd = dataclasses.replace(conversations[0], view="system")
    with pytest.raises(DataError, match=r"view 'system' with messages user \(control\).*as jsonl"):
        to_latentqa([odd], questions)


def test_records_hold_their_questions(tmp_path: Path) -> None:
    published(tmp_path / "in")
    conversations, questions, _ = imported(tmp_path / "in", tmp_path)
    records = to_records(conversations, questions)
    assert len(records) == len(conversations)
    assert sum(len(r["questions"]) for r in records) == len(questions)
    assert records[0]["messages"][0] == {
        "role": "user",
        "content": "control of sqa-eval-0",
        "segment": "control",
    }


def test_json_lines_are_the_records(tmp_path: Path) -> None:
    published(tmp_path / "in")
    conversations, questions, _ = imported(tmp_path / "in", tmp_path)
    conversations[0] = dataclasses.replace(conversations[0], label="persona-\u2028-\n-x")
    write_jsonl(tmp_path / "a.jsonl", conversations, questions)
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == to_records(conversations, questions)


def test_a_datasets_folder_has_a_part_a_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    published(tmp_path / "in")
    conversations, questions, _ = imported(tmp_path / "in", tmp_path)
    write_datasets(tmp_path / "ds", conversations, questions)
    loaded = datasets.load_from_disk(str(tmp_path / "ds"))
    assert set(loaded) == {"train", "validation", "test"}
    records = {r["example_id"]: r for r in to_records(conversations, questions)}
    assert sum(map(len, loaded.values())) == len(records)
    for split, rows in loaded.items():
        for found in rows:
            wanted = records[found["example_id"]]
            assert wanted["split"] == split
            assert found["messages"] == wanted["messages"]
            assert json.loads(found["provenance"]) == wanted["provenance"]
            assert [q["answer"] for q in found["questions"]] == [
                q["answer"] for q in wanted["questions"]
            ]
