"""Context rows, and the sources of texts that they are cut from."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoints import REASONS

from core.errors import ConfigError, DataError
from core.records.table_files import read_conversations, read_dropped
from core.records.table_files import read_questions as read_all
from core.records.tables import Conversation, Dropped
from generators.kinds.config import TextSource
from generators.kinds.sources import ResolvedTexts, SourceText, resolve_texts
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions

WORDS = ("quiet", "harbour", "northern", "town", "woke", "slowly", "grey", "gulls", "argued")
HARD = '{braces} "quotes" \\n {{slot}} 日本語の文章 😀 e\u0301 '


def text(number: int, size: int = 3000) -> str:
    """Make a text like no other: its words are numbered."""
    words = (f"{WORDS[(i * number) % len(WORDS)]}{number}.{i}" for i in range(size))
    return " ".join(words)[:size]


def lines(folder: Path, count: int) -> Path:
    path = folder / "texts.jsonl"
    rows = [{"text": text(i), "topic": f"t{i % 4}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def cut(
    folder: Path, source: Any, controls: int = 40, **changes: Any
) -> tuple[dict[str, Any], list[Conversation], list[Dropped]]:
    config = ConversationsConfig.model_validate(
        {"kinds": {"context": {"controls": controls, "source": source}}, **changes}
    )
    counts = generate_conversations(folder, LLMSession(log=folder / "log"), config=config)
    rows = read_conversations(folder / "conversations.parquet")
    return counts, rows, read_dropped(folder / "dropped.parquet")


def asked(folder: Path, **changes: Any) -> dict[str, dict[str, str]]:
    """example_id → type → answer."""
    generate_questions(
        folder,
        folder / "q",
        LLMSession(log=folder / "log"),
        config=QuestionsConfig(**changes),
    )
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for one in read_all(folder / "q/questions.parquet"):
        found[one.example_id][str(one.type)] = one.answer
    return found


def test_answers_stand_in_the_document_before_and_after_what_is_shown(tmp_path: Path) -> None:
    _, rows, _ = cut(tmp_path / "o", str(lines(tmp_path, 12)))
    texts = {i: text(i) for i in range(12)}
    answers = asked(tmp_path / "o")
    for row in rows:
        document = texts[int(row.provenance["facts"]["where"].split("[")[1][:-1])]
        found = answers[row.example_id]
        if row.view == "control":
            assert f"{row.control} {found['after']}" in document
            assert set(found) == {"after"}
            continue
        passage = row.messages[-1].content
        assert row.control.endswith(found["before"])
        assert f"{row.control} {passage} {found['after']}" in document
        assert 150 <= len(row.control) <= 300
        assert 150 <= len(passage) <= 300
        assert 40 <= len(found["after"]) <= 120


def test_a_document_falls_into_one_split(tmp_path: Path) -> None:
    counts, rows, _ = cut(tmp_path / "o", str(lines(tmp_path, 12)), controls=48)
    assert counts["by_kind"] == {"context": {"planned": 48, "kept": 48}}
    splits = defaultdict(set)
    for row in rows:
        splits[row.provenance["facts"]["where"]].add((row.split, row.group_id))
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())
    assert set(counts["by_split"]) == {"train", "validation", "test"}


def test_more_rows_begin_with_the_same_rows(tmp_path: Path) -> None:
    source = str(lines(tmp_path, 40))
    _, few, _ = cut(tmp_path / "few", source, controls=12)
    _, many, _ = cut(tmp_path / "many", source, controls=120)
    assert many[: len(few)] == few
    assert len({row.control for row in many}) == 120


def test_a_source_that_ends_gives_what_it_has(tmp_path: Path) -> None:
    counts, _, _ = cut(tmp_path / "o", str(lines(tmp_path, 3)), controls=100)
    assert counts["by_kind"] == {"context": {"planned": 100, "kept": 12}}


def test_what_cannot_be_a_row_is_listed_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    rows = [
        *(json.dumps({"text": t}) for t in (text(1), "short", f" {text(1)}\n")),
        "{broken",
        json.dumps({"body": text(2)}),
        '{"text": "half a pair \\ud800"}',
        json.dumps({"text": text(3)}),
    ]
    path.write_text("\n".join(rows) + "\n")
    counts, made, dropped = cut(tmp_path / "o", str(path))
    assert counts["dropped"] == {"duplicate": 1, "malformed": 3, "too_short": 1}
    assert [(row.reason, row.where) for row in dropped] == [
        ("too_short", "texts.jsonl[1]"),
        ("duplicate", "texts.jsonl[2]"),
        *(("malformed", f"texts.jsonl[{i}]") for i in (3, 4, 5)),
    ]
    assert {row.reason for row in dropped} <= REASONS
    assert dropped[3].detail == "no text in 'text'; found body"
    assert len({row.label for row in made}) == 2


def test_any_script_is_cut_between_characters_and_comes_through(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.txt").write_text(HARD * 100, encoding="utf-8")
    (tmp_path / "t/b.md").write_text("日本語の文章です。" * 300, encoding="utf-8")
    _, rows, _ = cut(tmp_path / "o", str(tmp_path / "t"))
    assert {row.provenance["facts"]["where"] for row in rows} == {"a.txt", "b.md"}
    for row in rows:
        whole = (tmp_path / "t" / row.provenance["facts"]["where"]).read_text(encoding="utf-8")
        assert all(m.content in whole for m in row.messages if m.role != "assistant")
        assert not row.control.startswith("\u0301")


def test_categories_come_from_a_column_or_the_folder_and_can_be_held_out(tmp_path: Path) -> None:
    source = {"path": str(lines(tmp_path, 12)), "category": "topic", "windows": 1}
    held: dict[str, Any] = {"splits": {"test_ood": ["context/t1"]}}
    _, rows, _ = cut(tmp_path / "o", source, **held)
    assert Counter(row.category for row in rows if row.split == "test_ood") == {"t1": 9}
    assert {row.category for row in rows} == {"t0", "t1", "t2", "t3"}
    for name in ("news/a.txt", "poems/x/b.txt", "c.txt"):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_text(text(len(name)))
    _, rows, _ = cut(tmp_path / "p", str(tmp_path / "t"))
    assert {row.category for row in rows} == {"news", "poems", "text"}
    with pytest.raises(ConfigError, match="no row has the category 'context/t9'"):
        cut(tmp_path / "n", source, splits={"test_ood": ["context/t9"]})


def read(path: Path, **settings: Any) -> list[str]:
    found = resolve_texts(TextSource(path=str(path), **settings)).documents()
    return [one.text for one in found if isinstance(one, SourceText)]


def test_files_folders_and_saved_data_sets_give_the_same_texts(tmp_path: Path) -> None:
    texts = [text(i, 200) for i in range(3)]
    (tmp_path / "txt").mkdir()
    for i, one in enumerate(texts):
        (tmp_path / "txt" / f"{i}.txt").write_text(one)
    table = pa.table({"body": texts})
    (tmp_path / "pq").mkdir()
    pq.write_table(table, tmp_path / "pq/part.parquet")
    assert read(tmp_path / "txt") == texts
    assert read(tmp_path / "pq", column="body") == texts
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset(table), "test": Dataset(table.slice(1))}).save_to_disk(
        str(tmp_path / "saved")
    )
    assert read(tmp_path / "saved", column="body") == texts
    assert read(tmp_path / "saved", column="body", split="test") == texts[1:]
    with pytest.raises(DataError, match=r"no split 'dev'; expected .* train, test"):
        read(tmp_path / "saved", column="body", split="dev")


def test_a_hub_data_set_is_streamed_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []

    def load_dataset(*words: Any, **settings: Any) -> Any:
        calls.append((words, settings))
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = TextSource(path="someone/texts", revision="ab" * 20, subset="en", split="test")
    found = resolve_texts(source)
    assert found.identity == {"dataset": "someone/texts", "commit": "ab" * 20}
    assert [one.text for one in found.documents() if isinstance(one, SourceText)] == ["one", "two"]
    assert calls == [
        (
            ("someone/texts", "en"),
            {"split": "test", "revision": "ab" * 20, "streaming": True},
        )
    ]


def test_a_revision_without_a_commit_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Api:
        def dataset_info(self, name: str, revision: str | None) -> Any:
            if name == "no/such":
                raise OSError("404")
            return type("Info", (), {"sha": "cd" * 20})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert resolve_texts(TextSource(path="some/one")) == ResolvedTexts(
        source=TextSource(path="some/one"),
        identity={"dataset": "some/one", "commit": "cd" * 20},
    )
    with pytest.raises(DataError, match=r"no/such: neither a file or folder here.*\(404\)"):
        resolve_texts(TextSource(path="no/such"))


def test_the_identity_is_the_files_not_their_place(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("one")
    here, there = (resolve_texts(TextSource(path=str(tmp_path / n))) for n in ("here", "there"))
    assert here.identity == there.identity
    (tmp_path / "there/a.txt").write_text("two")
    assert resolve_texts(TextSource(path=str(tmp_path / "there"))).identity != here.identity


def test_a_files_name_counts_as_far_as_it_decides_its_rows(tmp_path: Path) -> None:
    def identity(*names: str) -> object:
        folder = tmp_path / " ".join(names).replace("/", "-")
        for i, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"text {i}")
        return resolve_texts(TextSource(path=str(folder))).identity

    assert identity("a.txt", "b.txt") == identity("one.md", "two.txt")
    assert identity("a.txt", "b.txt") != identity("b.txt", "a.txt")  # the order of the rows
    assert identity("news/a.txt") != identity("poems/a.txt")  # their category
    assert identity("a.txt") != identity("a.jsonl")  # how they are read


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_text(encoding: str, tmp_path: Path) -> None:
    for folder, own in (("plain", "utf-8"), ("marked", encoding)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_bytes("The sea.\r\nÖl.".encode(own))
    plain, marked = (
        resolve_texts(TextSource(path=str(tmp_path / name))) for name in ("plain", "marked")
    )
    assert list(marked.documents()) == list(plain.documents())
    assert marked.identity != plain.identity  # it was part of the text before


def test_what_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfa")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "other.parquet")
    for name, words in (
        ("none.txt", "no such file or folder"),
        ("a.csv", r"no text; expected files that end in \.txt"),
        ("bad.txt", "not UTF-8"),
        ("bad.parquet", "not a readable Parquet file"),
        ("other.parquet", r"no column 'text'; found \['body'\]"),
    ):
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)


def test_a_plan_needs_a_source_where_the_kind_reads_texts_and_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kinds\.context\.source: is missing"):
        cut(tmp_path, None)
    config = ConversationsConfig.model_validate({"kinds": {"profile": {"source": "docs"}}})
    with pytest.raises(ConfigError, match=r"kinds\.profile\.source: this kind reads no texts"):
        generate_conversations(tmp_path, LLMSession(log=tmp_path / "l"), config=config)


def test_a_source_without_a_row_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("too short")
    with pytest.raises(DataError, match=r"context could be kept \(too_short 1\)"):
        cut(tmp_path / "o", str(tmp_path / "a.txt"))
