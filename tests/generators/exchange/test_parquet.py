"""Parquet shards with a card, as `datasets` loads them, and the way to the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conversation_lines import line, write
from endpoints import conversations, questions, resolved, small
from scripted_endpoint import ScriptedEndpoint

from core.errors import ConfigError
from core.records.estimate import Estimate
from core.records.tables import Conversation, Dropped, Question
from generators.exchange import parquet
from generators.exchange.exporting import to_records
from generators.exchange.parquet import write_parquet
from generators.quality.agreement import Agreement
from generators.quality.findings import (
    Answerability,
    Answerable,
    Faithful,
    QualityFindings,
    Verdicts,
)

Tables = tuple[list[Conversation], list[Question]]
LEAF = Estimate(estimate=0.5, low=0.25, high=0.75, n=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Written by a scripted model, with profiles beside."""
    from core.records.table_files import read_conversations, read_questions

    folder = tmp_path_factory.mktemp("made")
    kinds = {"persona": {"controls": 4}, "profile": {"controls": 9, "views": ["control"]}}
    with ScriptedEndpoint() as endpoint:
        conversations(folder, resolved(endpoint), small(kinds=kinds))
        questions(folder, resolved(endpoint))
    return (
        read_conversations(folder / "c/conversations.parquet"),
        read_questions(folder / "q/questions.parquet"),
    )


def test_datasets_loads_the_folder_with_all_that_is_in_it(
    made: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(parquet, "SHARD_ROWS", 4)
    write_parquet(tmp_path / "out", *made, name="mine")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    wanted = to_records(*made)
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: n
        for split in ("train", "validation", "test")
        if (n := sum(row["split"] == split for row in wanted))
    }
    found = {row["example_id"]: row for rows in loaded.values() for row in rows}
    for row in wanted:
        same = found[row["example_id"]]
        assert same["messages"] == row["messages"]
        assert [(q["question"], q["answer"], q["type"]) for q in same["questions"]] == [
            (q["question"], q["answer"], q["type"]) for q in row["questions"]
        ]
    shards = sorted(path.name for path in (tmp_path / "out/data").glob("train-*"))
    assert shards[0].startswith("train-00000-of-0000")
    assert len(shards) > 1


def test_the_card_says_what_is_in_it_and_who_made_it(made: Tables, tmp_path: Path) -> None:
    answerable = Answerable(own=LEAF, other=LEAF, above=LEAF, answerable=LEAF)

    def verdicts(**shares: float) -> Verdicts:
        return Verdicts(
            rubric="judge_answer",
            digest="d" * 64,
            verdicts=("faithful", "unfaithful"),
            n=9,
            unread=0,
            shares=shares,
            agreement=Agreement(n=9, raw=0.75, kappa=0.5),
        )

    quality = QualityFindings(
        flags={},
        examples={},
        compared=0,
        answerability=Answerability(all=answerable, by_type={}, unread=0),
        faithfulness={
            "answers": Faithful(
                own=verdicts(faithful=0.75, unfaithful=0.25),
                swapped=verdicts(faithful=0.25, unfaithful=0.75),
            ),
            "completions": None,
        },
    )
    write_parquet(
        tmp_path,
        *made,
        [Dropped(reason="refusal", where="x", detail="", raw="")],
        name="mine",
        licence="cc-by-4.0",
        source_licences={"model scripted@1": "apache-2.0"},
        quality=quality,
    )
    text = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["configs"][0]["data_files"][0] == {
        "split": "train",
        "path": "data/train-*.parquet",
    }
    prompt = next(row.provenance["prompt"] for row in made[0] if row.kind == "persona")
    for words in (
        "| persona | 4 | 12 |",
        "| model scripted@1 |",
        "| apache-2.0 |",
        "| code (profile) |",
        "| not stated |",
        f"| control of persona | `{prompt[:16]}` |",
        "| refusal | 1 |",
        "| all | 9 | 0.50 [0.25, 0.75] |",
        "| faithful | 75 % | 25 % |",
        "which agree on 75 % of 9 (κ 0.50)",
        "0 groups, labels or controls stand in two splits",
    ):
        assert words in text, words


def test_a_licence_for_a_source_that_is_not_there_is_refused(made: Tables, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"import x: no row comes from it; found code \(profile"):
        write_parquet(tmp_path, *made, name="mine", source_licences={"import x": "mit"})


def test_the_command_writes_the_folder_and_refuses_what_has_no_card(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from latentqa.commands.stored.data import app

    run = CliRunner()
    write(tmp_path / "a.jsonl", line(), line(label="b"))
    given = ["import", str(tmp_path / "a.jsonl"), "--format", "conversations", "--out"]
    assert run.invoke(app, [*given, str(tmp_path / "in")]).exit_code == 0
    args = ["export", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--format"]
    bad = run.invoke(app, [*args, "jsonl", "--license", "mit"])
    assert isinstance(bad.exception, ConfigError)
    done = run.invoke(app, [*args, "parquet", "--source-license", "import a.jsonl=mit"])
    assert done.exit_code == 0, done.exception
    assert "| import a.jsonl | 4 | mit |" in (tmp_path / "out/README.md").read_text()
