"""The published evaluation files themselves: all of them in, and back out byte for byte."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.records.table_files import read_conversations, read_dropped, read_questions
from core.records.tables import VIEWS, Conversation, Dropped, Question
from generators.exchange.config import ImportConfig
from generators.exchange.exporting import write_latentqa
from generators.exchange.importing import import_conversations, import_questions, source_digests
from generators.quality.describe import describe_dataset
from generators.splits import SplitConfig

DEFAULT = Path(__file__).parents[2] / ".." / "shared" / "data" / "latentqa_eval"
FOLDER = Path(os.environ.get("LATENTQA_PUBLISHED", DEFAULT))

pytestmark = [
    pytest.mark.published,
    pytest.mark.skipif(
        not FOLDER.is_dir(),
        reason=f"the published files are not in {FOLDER}; set LATENTQA_PUBLISHED to their folder",
    ),
]


class Imported:
    def __init__(self, out: Path, config: ImportConfig) -> None:
        self.counts = import_conversations(FOLDER, out / "c", config=config)
        self.question_counts = import_questions(FOLDER, out / "c", out / "q")
        self.rows: list[Conversation] = read_conversations(out / "c" / "conversations.parquet")
        self.questions: list[Question] = read_questions(out / "q" / "questions.parquet")
        self.dropped: list[Dropped] = [
            row for part in "cq" for row in read_dropped(out / part / "dropped.parquet")
        ]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return Imported(tmp_path_factory.mktemp("published"), ImportConfig())


def source(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_row_and_label_is_in_a_table_or_named_as_dropped(imported: Imported) -> None:
    sizes = {view: len(source(view)) for view in VIEWS}
    assert imported.counts["by_view"] == sizes
    assert imported.counts["dropped"] == {}
    labels = source("qa")
    assert imported.question_counts["labels"] + len(imported.dropped) == len(labels)
    assert imported.question_counts["questions"] == 2 * sum(sizes.values())
    orphans = set(labels) - {row["label"] for view in VIEWS for row in source(view)}
    assert {label for row in imported.dropped for label in json.loads(row.raw)} == orphans
    assert imported.question_counts["dropped"] == {"no_conversation": len(orphans)}


def test_the_files_come_back_byte_for_byte(imported: Imported, tmp_path: Path) -> None:
    write_latentqa(tmp_path, imported.rows, imported.questions, imported.dropped)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(source_digests(FOLDER))
    assert source_digests(tmp_path) == source_digests(FOLDER)


def test_no_group_label_or_control_is_in_two_splits(imported: Imported) -> None:
    leaks = describe_dataset(imported.rows, imported.questions)["leaks"]
    assert leaks == {"groups": [], "labels": [], "controls": []}


def test_labels_with_several_controls_are_one_group(imported: Imported) -> None:
    groups: dict[str, set[str]] = {}
    controls: dict[str, set[str]] = {}
    for row in imported.rows:
        groups.setdefault(row.label, set()).add(row.group_id)
        controls.setdefault(row.label, set()).add(row.control)
    assert all(len(found) == 1 for found in groups.values())
    assert Counter(len(found) > 1 for found in controls.values())[True] >= 1


def test_the_shares_of_each_kind_are_exact(imported: Imported) -> None:
    for kind in ("persona", "goal", "extractive"):
        split_of = {row.group_id: row.split for row in imported.rows if row.kind == kind}
        counts = Counter(split_of.values())
        assert abs(counts["test"] - 0.2 * len(split_of)) <= 0.5
        assert abs(counts["validation"] - 0.1 * len(split_of)) <= 0.5


def test_held_out_categories_leave_the_other_splits(tmp_path: Path) -> None:
    held_out = ("persona/job", "goal/persuasion")
    found = Imported(tmp_path, ImportConfig(splits=SplitConfig(test_ood=held_out)))
    splits = {row.split for row in found.rows if f"{row.kind}/{row.category}" in held_out}
    assert splits == {"test_ood"}
    assert found.counts["by_split"]["test_ood"]["controls"] >= 20


def test_an_import_takes_the_same_bytes_again(tmp_path: Path) -> None:
    for name in "ab":
        import_conversations(FOLDER, tmp_path / name, config=ImportConfig())
    assert (tmp_path / "a" / "conversations.parquet").read_bytes() == (
        tmp_path / "b" / "conversations.parquet"
    ).read_bytes()
