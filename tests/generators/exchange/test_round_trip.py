"""Rows of every kind go out and come in again as the same rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from endpoints import conversations, questions, resolved
from scripted_endpoint import ScriptedEndpoint

from core.errors import DataError
from core.records.table_files import read_conversations, read_questions
from core.records.tables import Conversation, Question
from generators.exchange.config import ImportConfig
from generators.exchange.conversation_files import import_own_conversations, import_own_questions
from generators.exchange.exporting import write_datasets, write_jsonl, write_latentqa
from generators.exchange.importing import import_conversations, import_questions
from generators.exchange.parquet import write_parquet
from generators.kinds import KINDS
from generators.making.config import ConversationsConfig

Tables = tuple[list[Conversation], list[Question]]
TEXT = "The ferry left Ribe at dawn. Fog lay on the water. Nobody spoke on deck. "


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Make rows of all kinds, with the views that each has, and their questions."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts/sea-side").mkdir(parents=True)
    for i in range(6):
        (folder / f"texts/sea-side/{i}.txt").write_text(f"Day {i}. {TEXT * 20}")
    kinds: dict[str, Any] = {name: {"controls": 4} for name in KINDS}
    kinds["context"]["source"] = {"path": str(folder / "texts")}
    money = [
        {"subject": name, "object": f"coin {name[0]}", "source": f"We went to {name} and on",
         "question": "The currency of x"}
        for name in ("Banland", "Borova", "Telland", "Telova", "Visland", "Visova")
    ]  # fmt: skip
    (folder / "money.json").write_text(json.dumps(money))
    kinds["relation"]["source"] = {"path": str(folder / "money.json")}
    config = ConversationsConfig.model_validate({"kinds": kinds})
    with ScriptedEndpoint() as endpoint:
        conversations(folder, resolved(endpoint), config)
        questions(folder, resolved(endpoint))
    return imported_tables(folder)


def imported_tables(folder: Path) -> Tables:
    return (
        read_conversations(folder / "c/conversations.parquet"),
        read_questions(folder / "q/questions.parquet"),
    )


def content(row: Conversation) -> tuple[Any, ...]:
    return (row.example_id, row.control_id, row.kind, row.category, row.label, row.view,
            row.messages)  # fmt: skip


def pairs(questions: list[Question]) -> Counter[tuple[str, str, str]]:
    return Counter((one.example_id, one.question, one.answer) for one in questions)


def test_every_kind_is_among_them(made: Tables) -> None:
    assert {row.kind for row in made[0]} == set(KINDS)
    assert {row.example_id for row in made[0]} == {one.example_id for one in made[1]}


def test_latentqas_files_bring_every_kind_back(made: Tables, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text \(control\) has no LatentQA form"):
        write_latentqa(tmp_path / "none", *made)
    rows = [row for row in made[0] if row.kind != "relation"]
    kept = {row.example_id for row in rows}
    made = (rows, [one for one in made[1] if one.example_id in kept])
    write_latentqa(tmp_path / "out", *made)
    import_conversations(tmp_path / "out", tmp_path / "c", config=ImportConfig())
    import_questions(tmp_path / "out", tmp_path / "c", tmp_path / "q")
    found, asked = imported_tables(tmp_path)
    assert sorted(map(content, found)) == sorted(map(content, made[0]))
    assert pairs(asked) == pairs(made[1])


@pytest.mark.parametrize("form", ["jsonl", "datasets", "parquet"])
def test_other_forms_bring_splits_groups_and_types_back_as_well(
    form: str, made: Tables, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if form == "jsonl":
        out = tmp_path / "rows.jsonl"
        write_jsonl(out, *made)
    elif form == "datasets":
        write_datasets(out, *made)
    else:
        write_parquet(out, *made, name="rows")
    import_own_conversations(out, tmp_path / "c", config=ImportConfig())
    import_own_questions(out, tmp_path / "c", tmp_path / "q")
    found, asked = imported_tables(tmp_path)

    def whole(row: Conversation) -> tuple[Any, ...]:
        return (*content(row), row.group_id, row.split)

    assert sorted(map(whole, found)) == sorted(map(whole, made[0]))
    typed = [Counter((one.example_id, one.question, one.type) for one in each)
             for each in (asked, made[1])]  # fmt: skip
    assert typed[0] == typed[1]
    assert pairs(asked) == pairs(made[1])
