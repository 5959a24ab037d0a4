"""Rows of files of relations: natural texts that end with a subject, whose object is asked for."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from table_rows import conversation

from core.errors import ConfigError, DataError
from core.records.table_files import read_conversations, read_questions
from core.records.tables import Conversation
from generators.kinds.base import DrawnControl
from generators.kinds.config import TextSource
from generators.kinds.relation import Relations
from generators.kinds.sources import resolve_texts
from generators.llm.prompt_files import PromptFiles
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions

KIND, TEXTS = Relations(), PromptFiles()
NAMES = [f"{a}{b}" for a in ("Ban", "Mor", "Tel", "Vis") for b in ("ia", "land", "stan", "ova")]


def write(folder: Path, name: str, question: str, objects: str, texts: int = 2) -> None:
    rows = [
        {
            "subject": subject,
            "object": f"{objects}{i % 3}",
            "source": f"Text {number} leads to {subject} and on",
            "question": question,
        }
        for i, subject in enumerate(NAMES)
        for number in range(texts)
    ]
    (folder / f"{name}.json").write_text(json.dumps(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relations").mkdir()
    write(tmp_path / "relations", "money", "The currency of x", "coin")
    write(tmp_path / "relations", "river", "The longest river in x", "water", texts=3)
    return tmp_path / "relations"


def controls(folder: Path, seed: int = 0, count: int | None = None) -> list[DrawnControl]:
    source = resolve_texts(TextSource(path=str(folder)), KIND.endings)
    found = islice(KIND.controls(seed, TEXTS, source), count)
    return [one for one in found if isinstance(one, DrawnControl)]


def generate(folder: Path, out: Path, **plan: Any) -> tuple[dict[str, Any], list[Conversation]]:
    config = ConversationsConfig.model_validate(
        {
            "kinds": {"relation": {"source": str(folder), "controls": 500, **plan}},
            "splits": {"validation": 0.2, "test": 0.3},
        }
    )
    out.mkdir()
    session = LLMSession(log=out / "log")
    counts = generate_conversations(out, session, config=config)
    generate_questions(out, out, session, config=QuestionsConfig(per_control=4))
    return counts, read_conversations(out / "conversations.parquet")


def test_a_row_is_plain_text_up_to_its_subject(folder: Path, tmp_path: Path) -> None:
    _, rows = generate(folder, tmp_path / "out")
    assert len({row.control for row in rows}) == len(rows) == 3 * len(NAMES)
    for row in rows:
        (message,) = row.messages
        assert (row.view, message.role, message.segment) == ("control", "text", "control")
        assert row.control.endswith(row.provenance["facts"]["subject"])


def test_subjects_fall_into_one_split_whatever_the_file(folder: Path, tmp_path: Path) -> None:
    counts, rows = generate(folder, tmp_path / "out")
    splits = defaultdict(set)
    for row in rows:
        splits[row.provenance["facts"]["subject"]].add(row.split)
    assert len(splits) == len(NAMES)
    assert all(len(own) == 1 for own in splits.values())
    assert set(counts["by_split"]) == {"train", "validation", "test"}


def test_what_several_files_ask_about_a_text_is_asked_of_one_row(
    folder: Path, tmp_path: Path
) -> None:
    _, rows = generate(folder, tmp_path / "out")
    asked = defaultdict(list)
    for question in read_questions(tmp_path / "out" / "questions.parquet"):
        asked[question.example_id].append((question.question, question.answer))
    shared = next(row for row in rows if row.control.startswith("Text 0"))
    own = {objects: answer for _, answer in asked[shared.example_id] for objects in [answer[:-1]]}
    assert [question for question, _ in asked[shared.example_id][:2]] in (
        ["The currency of", "The longest river in"],
        ["The longest river in", "The currency of"],
    )
    assert set(own) == {"coin", "water"}
    alone = next(row for row in rows if row.control.startswith("Text 2"))
    assert asked[alone.example_id] == [
        ("The longest river in", own_object(alone)),
        (
            'Complete the sentence with a name: "The longest river in … is"',
            own_object(alone),
        ),
    ]


def own_object(row: Conversation) -> str:
    (asked,) = row.provenance["facts"]["asked"]
    return str(asked["object"])


def test_a_larger_plan_begins_with_a_smaller_one_and_files_take_turns(folder: Path) -> None:
    few, many = controls(folder, count=8), controls(folder)
    assert many[: len(few)] == few
    assert len({one.label for one in few}) == len(few)
    assert controls(folder, seed=1)[: len(few)] != few
    row = conversation(provenance={"facts": dict(many[0].facts)})
    assert list(KIND.questions("single_fact", row, TEXTS, Random(0)))


def test_no_more_texts_of_a_subject_than_the_source_says(folder: Path, tmp_path: Path) -> None:
    _, rows = generate(folder, tmp_path / "out", source={"path": str(folder), "windows": 1})
    assert len(rows) == len(NAMES)


def test_the_identity_is_what_the_files_say(folder: Path) -> None:
    def identity() -> object:
        return resolve_texts(TextSource(path=str(folder)), KIND.endings).identity

    before = identity()
    (folder / "notes.txt").write_text("not read")
    assert identity() == before
    (folder / "river.json").rename(folder / "water.json")
    assert identity() != before


def test_files_of_several_paths_are_read_together_and_each_name_once(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other, "peak", "The highest peak of x", "peak")
    _, rows = generate(folder, tmp_path / "out", source=[str(folder), str(other)])
    assert {"relation/peak", "relation/money"} <= {row.category for row in rows} | {
        f"relation/{own['relation']}" for row in rows for own in row.provenance["facts"]["asked"]
    }
    write(other, "money", "The coin of x", "coin")
    with pytest.raises(DataError, match="have one name; rename one"):
        generate(folder, tmp_path / "twice", source=[str(folder), str(other)])


def test_a_source_that_is_no_file_of_relations_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no text; expected files that end in \.tsv"):
        generate(tmp_path / "none", tmp_path / "a")
    with pytest.raises(ConfigError, match=r"relation\.source: is missing; name a file"):
        generate(folder, tmp_path / "b", source=None)
